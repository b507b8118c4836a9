"""The HTTP face of the edge."""
