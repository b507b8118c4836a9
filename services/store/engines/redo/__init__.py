"""A redo log over a tree: commits are durable here first, and some time later there."""
