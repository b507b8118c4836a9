"""A whole mesh on this machine: its processes, its description, and the demo."""
