"""The Autonomys file DAG: names, writes, reads and verifies files as trees of nodes (docs/dag.md).

Owns the format and nothing else: where nodes are kept, and how they are fetched, is the caller's.
"""
