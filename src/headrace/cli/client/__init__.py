"""How commands talk to a server over HTTP: its address, and a client that costs little enough to measure with."""
