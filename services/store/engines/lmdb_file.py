"""What an LMDB data file must be before it is mapped; read as plain bytes, without LMDB.

LMDB maps its file and trusts it: a page that is mapped and not there (the file was cut short) ends
the process by SIGBUS, and a root that is garbage leads anywhere. A crash or a full disk does not
make such a file, as commits are copy-on-write; a copy that was cut off, or a disk that lies, does.

The layout is that of LMDB 0.9, ``lib/mdb.c``: ``MDB_page``, ``MDB_meta``, ``MDB_db``, ``MDB_node``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from services.store.errors import StoreUnavailableError

DATA_FILE, OWNER_FILE = "data.mdb", "owner.lock"
_OPENED = b"opened\n"
"""In the owner file of a store that was opened once: its data file is never empty again."""
_ORDER = "<" if sys.byteorder == "little" else ">"
_PAGE = Struct(_ORDER + "QHHHH")
"""Number, unused here, flags, then the bounds of the free space."""
_META = Struct(_ORDER + "IIQQ" + 2 * "IHHQQQQQ" + "QQ")
"""Magic, version, address, map size, two trees, last page, transaction."""
_NODE = Struct(_ORDER + "HHHH")
_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _IS_META = 0x01, 0x02, 0x08
_ON_PAGES_OF_ITS_OWN = 0x01
"""A flag of a node: its value."""
_NO_PAGE = 2**64 - 1
_METAS = 2
_LARGEST_PAGE = 1 << 16
_DEEPEST = 32
_REMEDY = (
    "it was cut short, overwritten, or not copied whole: put the directory back from a backup or a "
    "snapshot, and run tollmesh audit after the start"
)


class _DamagedError(Exception):
    """Says what is wrong with a file."""


class _Tree(NamedTuple):
    """A B+ tree."""

    page_size_or_zero: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int


class _Meta(NamedTuple):
    """One of the two states that a file can be opened in."""

    map_bytes: int
    page_bytes: int
    trees: tuple[_Tree, _Tree]
    last_page: int
    transaction: int


def check(directory: Path) -> None:
    """Raises ``StoreUnavailableError`` unless the data file in a directory can be mapped safely.

    A file that is absent or empty is fine if the store was never opened (``note_opened``). What the
    pages of the trees say is not looked at: that is for ``tollmesh audit``. Costs a few reads; a
    walk through the tree if the file is short. Raises OSError when the file cannot be read. Safe to
    repeat; nothing may write meanwhile.
    """
    try:
        _check_in(directory)
    except _DamagedError as damage:
        raise StoreUnavailableError(
            f"cannot open the store in {directory}: {DATA_FILE} is damaged: {damage}; {_REMEDY}"
        ) from None


def note_opened(owner: int) -> None:
    """Notes, in the open owner file, that the store's data file is there from now on."""
    with suppress(OSError):  # a full disk; it is noted next time
        if not os.fstat(owner).st_size:
            os.pwrite(owner, _OPENED, 0)
            os.fsync(owner)


def make_directory(directory: Path) -> None:
    """Makes a directory and those above it, if absent, so that it survives a power failure.

    The name of a new directory stands in the one above: that is synced, too. Raises OSError.
    """
    missing = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_directory(made.parent)


def sync_directory(directory: Path) -> None:
    """Makes the names in a directory durable; raises OSError."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _File(NamedTuple):
    """An open file."""

    number: int
    size_bytes: int

    def read(self, offset: int, size_bytes: int) -> bytes:
        """Bytes of it; raises ``_DamagedError`` if they are not all there."""
        found = os.pread(self.number, size_bytes, offset)
        if len(found) < size_bytes:
            raise _DamagedError(f"it ends after {self.size_bytes} bytes")
        return found


def _check_in(directory: Path) -> None:
    try:
        file = os.open(directory / DATA_FILE, os.O_RDONLY)
    except FileNotFoundError:
        _check_new(directory)
        return
    try:
        size_bytes = os.fstat(file).st_size
        if size_bytes:
            _check(_File(file, size_bytes))
        else:
            _check_new(directory)
    finally:
        os.close(file)


def _check_new(directory: Path) -> None:
    owner = directory / OWNER_FILE
    if owner.exists() and owner.stat().st_size:
        raise _DamagedError("it is empty or gone, and there was a store")


def _check(file: _File) -> None:
    first = _meta(file, 0, 0)
    second = _meta(file, 1, first.page_bytes)
    if abs(first.transaction - second.transaction) > 1 or first.page_bytes != second.page_bytes:
        raise _DamagedError("its first two pages do not belong together")
    latest = max(first, second, key=lambda meta: meta.transaction)
    if not _leads_somewhere(latest):
        raise _DamagedError("the latest of its first two pages is not what must stand there")
    for tree in latest.trees:
        if tree.root != _NO_PAGE:
            _check_root(file, latest, tree)
    pages = file.size_bytes // latest.page_bytes
    if pages <= latest.last_page:
        for page in _pages_of(file, latest):
            if page >= pages:
                raise _DamagedError(f"it has {pages} whole pages, and needs page {page}")


def _meta(file: _File, number: int, offset: int) -> _Meta:
    """Page 0 or 1; raises ``_DamagedError`` for what LMDB never wrote there."""
    stored = file.read(offset, _PAGE.size + _META.size)
    flags = _PAGE.unpack_from(stored)[2]
    magic, form, _, map_bytes, *rest = _META.unpack_from(stored, _PAGE.size)
    trees = _Tree(*rest[:8]), _Tree(*rest[8:16])
    meta = _Meta(map_bytes, trees[0].page_size_or_zero, trees, rest[16], rest[17])
    if not flags & _IS_META or (magic, form) != (_MAGIC, _FORMAT) or not _is_sound(meta, number):
        raise _DamagedError(f"page {number} is not what must stand there")
    return meta


def _is_sound(meta: _Meta, number: int) -> bool:
    size = meta.page_bytes
    return (
        _PAGE.size + _META.size <= size <= _LARGEST_PAGE
        and not size & (size - 1)
        and (not meta.transaction or meta.transaction % _METAS == number)
    )


def _leads_somewhere(meta: _Meta) -> bool:
    """Whether its trees can be in the file; must be so of the latest state only.

    Where LMDB could not write a meta page, it puts back the number of the state before, no more.
    """
    return _METAS - 1 <= meta.last_page < meta.map_bytes // meta.page_bytes and all(
        tree.depth <= _DEEPEST and (tree.root == _NO_PAGE or _METAS <= tree.root <= meta.last_page)
        for tree in meta.trees
    )


def _check_root(file: _File, meta: _Meta, tree: _Tree) -> None:
    number, _, flags, _, _ = _PAGE.unpack(file.read(tree.root * meta.page_bytes, _PAGE.size))
    if number != tree.root or flags & (_BRANCH | _LEAF) != (_LEAF if tree.depth == 1 else _BRANCH):
        raise _DamagedError(f"page {tree.root} is not the root of a tree")


def _pages_of(file: _File, meta: _Meta) -> Iterator[int]:
    """The numbers of the pages that the trees need; what is free may well be behind the end.

    A page's number comes before the page is read.
    """
    for tree in meta.trees:
        pages = [] if tree.root == _NO_PAGE else [(tree.root, 1)]
        while pages:
            page, depth = pages.pop()
            yield page
            if depth > tree.depth or page > meta.last_page:
                raise _DamagedError(f"page {page} is in no place for a page")
            if depth < tree.depth:
                pages += [(child, depth + 1) for child in _children(file, meta, page)]
            elif tree.overflow_pages:
                yield from _overflow(file, meta, page)


def _children(file: _File, meta: _Meta, page: int) -> Iterator[int]:
    for node, _ in _nodes(file, meta, page, _BRANCH):
        low, high, top, _ = node
        yield low | high << 16 | top << 32


def _overflow(file: _File, meta: _Meta, page: int) -> Iterator[int]:
    """The last pages of the values that have pages of their own."""
    for node, behind in _nodes(file, meta, page, _LEAF):
        low, high, flags, key_bytes = node
        if flags & _ON_PAGES_OF_ITS_OWN:
            first = int.from_bytes(behind[key_bytes : key_bytes + 8], sys.byteorder)
            yield first + (_PAGE.size + (low | high << 16) - 1) // meta.page_bytes


def _nodes(
    file: _File, meta: _Meta, page: int, kind: int
) -> Iterator[tuple[tuple[int, int, int, int], bytes]]:
    """The head of each node of a page, and the bytes behind it."""
    stored = file.read(page * meta.page_bytes, meta.page_bytes)
    number, _, flags, lower, _ = _PAGE.unpack_from(stored)
    if number != page or not flags & kind or not _PAGE.size <= lower <= meta.page_bytes:
        raise _DamagedError(f"page {page} is not what must stand there")
    for place in range(_PAGE.size, lower, 2):
        start = int.from_bytes(stored[place : place + 2], sys.byteorder)
        if start > meta.page_bytes - _NODE.size:
            raise _DamagedError(f"page {page} is not what must stand there")
        yield _NODE.unpack_from(stored, start), stored[start + _NODE.size :]
