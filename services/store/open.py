"""Opens the store that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from services.store.engine import Engine
from services.store.group_commit import GroupCommit
from services.store.port import Store


async def open_store(url: str) -> Store:
    """Opens a store.

    ``lmdb:///var/lib/tollmesh/credits`` is the embedded engine in a directory (made when absent).

    Raises ``ValueError`` for a URL that names no engine, ``StoreInUseError`` when another process
    has the directory, ``StoreUnavailableError`` when the engine cannot be opened, and
    ``EngineMissingError`` when its library is not installed.
    """
    return GroupCommit(_engine(url))


def _engine(url: str) -> Engine:
    parts = urlsplit(url)
    parse_qs(parts.query)
    if parts.scheme == "lmdb" and not parts.netloc and parts.path.startswith("/"):
        from services.store.engines.lmdb import LmdbEngine  # noqa: PLC0415 (only what is used)

        return LmdbEngine(Path(unquote(parts.path)))
    raise ValueError(f"{url!r} names no store engine; use lmdb:///DIRECTORY")
