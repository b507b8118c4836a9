"""One file on its way: which of its nodes stand in a block, and which of those are final."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.chain.networks.port import Finality, Located
from services.chain.publications import Progress
from services.chain.spool import Pack


class Job:
    """The nodes of one pack, by where they stand."""

    def __init__(self, root: bytes, pack: Pack) -> None:
        self.root = root
        self.pack = pack
        self.missing = dict.fromkeys(pack.places)
        """Digests of nodes in no block, in the order in which they go out."""
        self._in_block: dict[bytes, int] = {}
        self._final = 0

    @property
    def progress(self) -> Progress:
        """How many nodes stand where."""
        total = len(self.pack.places)
        return Progress(total, total - len(self.missing), self._final)

    @property
    def unsettled(self) -> list[bytes]:
        """Digests of nodes in a block that may still be dropped."""
        return list(self._in_block)

    def place(self, located: Mapping[bytes, Located]) -> None:
        """Notes that nodes stand in blocks."""
        for digest in [digest for digest in self.missing if digest in located]:
            at = located[digest]
            del self.missing[digest]
            if at.finality is Finality.FINALIZED:
                self._final += 1
            else:
                self._in_block[digest] = at.block.number

    def settle(self, finalized: int) -> None:
        """Notes that blocks up to a number are final."""
        final = [digest for digest, number in self._in_block.items() if number <= finalized]
        for digest in final:
            del self._in_block[digest]
        self._final += len(final)

    def unplace(self, digests: Iterable[bytes]) -> None:
        """Notes that nodes stand in no block any more; they go out again before others."""
        gone = dict.fromkeys(digest for digest in digests if digest in self._in_block)
        for digest in gone:
            del self._in_block[digest]
        self.missing = gone | self.missing

    def restart(self) -> None:
        """Forgets where nodes stand: the chain is another one."""
        self.missing = dict.fromkeys(self.pack.places)
        self._in_block.clear()
        self._final = 0
