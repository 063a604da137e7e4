"""Stand-ins for tests, Headrace's own and its users': no torch, no model."""
