"""The bodies that the routes take."""
