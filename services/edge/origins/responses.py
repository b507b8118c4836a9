"""The store of responses: by origin and target, several variants each, bounded in bytes.

Small bodies are in memory, larger ones in files. Nothing outlives the process: another one would
have to trust heads and bodies that it cannot check (an origin's bytes have no content id), and an
origin is asked again cheaply. So there is nothing to sync, and nothing to repair after a crash:
what lies in the directory when the store opens is deleted.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from services.edge.origins.fields import Fields
from services.edge.origins.stored import Stored
from services.edge.origins.vary import matches

Key = tuple[str, str]
"""The origin's name, and the target there: path and query."""

_THREADS = 4
_MOST_VARIANTS = 32


class Responses:
    """The store; a Room for bodies.

    Args:
        directory: for larger bodies; all that is in it is deleted.
        memory_bytes: bound of heads and small bodies.
        disk_bytes: bound of the files.
        memory_object_bytes: larger bodies go to files.
        max_object_bytes: larger bodies are not kept.
    """

    def __init__(
        self,
        directory: Path,
        *,
        memory_bytes: int,
        disk_bytes: int,
        memory_object_bytes: int,
        max_object_bytes: int,
    ) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        self.directory = directory
        self.threads = ThreadPoolExecutor(_THREADS, "origins")
        self.memory_object_bytes = min(memory_object_bytes, memory_bytes)
        self.max_object_bytes = max_object_bytes
        self.memory_bytes = 0
        """In memory now."""
        self.disk_bytes = 0
        """In files now."""
        self._most_memory = memory_bytes
        self._most_disk = disk_bytes
        self._variants: dict[Key, list[Stored]] = {}
        self._order: OrderedDict[Stored, Key] = OrderedDict()
        """What was not used for longest comes first."""
        self._filed: OrderedDict[Stored, None] = OrderedDict()
        """Those in files, in the same order."""
        self._heads: dict[Stored, int] = {}

    def close(self) -> None:
        """Forgets everything."""
        for stored in list(self._order):
            self.remove(stored)
        self.threads.shutdown()
        shutil.rmtree(self.directory, ignore_errors=True)

    def variants(self, key: Key) -> list[Stored]:
        """All that is stored for a target."""
        return self._variants.get(key, [])

    def find(self, key: Key, request: Fields) -> Stored | None:
        """What a request may be answered with; the most recent where several are (section 4.1)."""
        found = [each for each in self.variants(key) if matches(each.selected, request)]
        if not found:
            return None
        stored = max(found, key=lambda each: each.made_at)
        self._order.move_to_end(stored)
        if stored in self._filed:
            self._filed.move_to_end(stored)
        return stored

    def add(self, key: Key, stored: Stored, request: Fields) -> None:
        """Keeps a response whose body is whole, in the place of those that it replaces."""
        for other in list(self.variants(key)):
            if matches(other.selected, request) or other.selected == stored.selected:
                self.remove(other)
        variants = self.variants(key)
        if len(variants) >= _MOST_VARIANTS:
            self.remove(variants[0])
        head = stored.head_bytes + 2 * len(key[1])
        if not stored.body.kept or not self.claim(head, 0):
            stored.body.drop()
            return
        self._heads[stored] = head
        self._variants.setdefault(key, []).append(stored)
        self._order[stored] = key
        if stored.body.on_disk:
            self._filed[stored] = None

    def remove(self, stored: Stored) -> None:
        """Forgets a response, if it is there."""
        key = self._order.pop(stored, None)
        if key is None:
            return
        self._filed.pop(stored, None)
        variants = self._variants[key]
        variants.remove(stored)
        if not variants:
            del self._variants[key]
        self.free(self._heads.pop(stored), 0)
        stored.body.drop()

    def purge(self, name: str, target: str | None = None) -> int:
        """Forgets what is stored for a target (path and query), or for an origin; how many."""
        if target is not None:
            found = list(self.variants((name, target)))
        else:
            found = [stored for stored, key in self._order.items() if key[0] == name]
        for stored in found:
            self.remove(stored)
        return len(found)

    def __iter__(self) -> Iterator[Key]:
        """The targets of which something is stored."""
        return iter(self._variants)

    def claim(self, memory: int, disk: int) -> bool:
        """See Room. Forgets what was not used for longest and is not being read."""
        while self.memory_bytes + memory > self._most_memory:
            if not memory or not self._evict(on_disk=False):
                return False
        while self.disk_bytes + disk > self._most_disk:
            if not disk or not self._evict(on_disk=True):
                return False
        self.memory_bytes += memory
        self.disk_bytes += disk
        return True

    def free(self, memory: int, disk: int) -> None:
        """See Room."""
        self.memory_bytes -= memory
        self.disk_bytes -= disk

    def _evict(self, *, on_disk: bool) -> bool:
        """Forgets one response; False when there is none to forget."""
        for stored in self._filed if on_disk else self._order:
            if not stored.body.in_use:
                self.remove(stored)
                return True
        return False
