"""Where the bytes of a file are in its tree of nodes: arithmetic, and nothing fetched.

The encoder cuts a file into chunks of one size (the last may be shorter), links them in order from
FileInlinks of one number of links (the last of each height may have fewer), and repeats that until
one node, the root, holds the rest. All leaves are at the same depth. So four numbers say where
everything is, and what each node must look like. Nodes are counted from 0 at each height; leaves
are at height 0, the root is alone at height ``depth``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """The shape of one file of at least two chunks."""

    size_bytes: int
    depth: int
    fan_out: int
    """Links of a full FileInlink. Without meaning when the depth is 1."""
    chunk_bytes: int
    """Data of a full chunk."""

    @property
    def leaves(self) -> int:
        """How many chunks the file is cut into, equal ones included."""
        return _divide_up(self.size_bytes, self.chunk_bytes)

    def nodes_at(self, height: int) -> int:
        """How many nodes there are at a height below the root's; at the root's, its links."""
        return _divide_up(self.leaves, self.fan_out**height)

    def links_of_root(self) -> int:
        """How many links the root must have."""
        return self.nodes_at(self.depth - 1)

    def links_of(self, height: int, index: int) -> int:
        """How many links FileInlink ``index`` at ``height`` must have."""
        below = self.nodes_at(height - 1)
        return min(self.fan_out, below - index * self.fan_out)

    def bytes_of_leaf(self, index: int) -> int:
        """How many bytes of data chunk ``index`` must have."""
        return min(self.chunk_bytes, self.size_bytes - index * self.chunk_bytes)


def _divide_up(value: int, by: int) -> int:
    return -(-value // by)
