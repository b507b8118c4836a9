"""What the edge keeps: a memory tier, a disk tier, and what was pinned."""
