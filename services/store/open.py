"""Opens the store that a URL names."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from services.store.engine import Engine
from services.store.group_commit import GroupCommit, Limits
from services.store.optimistic import OptimisticEngine
from services.store.port import Store
from services.store.turns import Lines

_CLIENT_BYTES = 16


async def open_store(url: str, *, limits: Limits | None = None) -> Store:
    """Opens a store; close it in the same event loop.

    ``lmdb:///var/lib/tollmesh/credits``
        The embedded engine in a directory, which is made when absent. One process at a time.
    ``fdb:///etc/foundationdb/fdb.cluster?directory=tollmesh``
        A FoundationDB cluster; ``fdb:?directory=tollmesh`` uses the client library's default
        cluster file. The directory ("a/b" is b in a) is made when absent, and is ``tollmesh``
        unless given.
    ``simulated:?seed=1``
        In memory, for tests; fails on purpose, repeatably. ``simulated:?seed=1&faults=none`` does
        not.

    Raises ``ValueError`` for a URL that names no engine, ``StoreInUseError`` when another process
    has the directory, ``StoreUnavailableError`` when the engine cannot be opened, and
    ``EngineMissingError`` when its library is not installed.
    """
    parts, options = _parsed(url)
    opener, _ = _ENGINES[parts.scheme]
    return GroupCommit(await opener(parts, options), limits)


def checked_url(url: str) -> str:
    """The same URL, for settings: raises ``ValueError`` when it names no store."""
    _parsed(url)
    return url


def _parsed(url: str) -> tuple[SplitResult, dict[str, str]]:
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    if parts.netloc or parts.scheme not in _ENGINES:
        raise ValueError(f"{url!r} names no store; use lmdb:///DIRECTORY or fdb:///CLUSTER_FILE")
    _, known = _ENGINES[parts.scheme]
    if unknown := options.keys() - known:
        raise ValueError(f"{url!r}: {parts.scheme} has no option {min(unknown)!r}")
    if parts.scheme == "lmdb" and not parts.path.startswith("/"):
        raise ValueError(f"{url!r}: an LMDB store needs an absolute path")
    return parts, options


# An engine's module is imported only when it is used: its library may be missing.


async def _lmdb(parts: SplitResult, options: dict[str, str]) -> Engine:  # noqa: ARG001 (has none)
    from services.store.engines.lmdb import LmdbEngine  # noqa: PLC0415 (as above)

    return LmdbEngine(Path(unquote(parts.path)))


async def _foundationdb(parts: SplitResult, options: dict[str, str]) -> Engine:
    from services.store.engines import foundationdb  # noqa: PLC0415 (as above)

    cluster_file = Path(unquote(parts.path)) if parts.path else None
    directory = options.get("directory", "tollmesh")
    database = await foundationdb.FoundationDatabase.open(cluster_file, directory)
    client, lanes = os.urandom(_CLIENT_BYTES), foundationdb.LANES
    return OptimisticEngine(
        database,
        client=client,
        lanes=lanes,
        readers=foundationdb.READERS,
        turns=Lines(database, client, lanes),
    )


async def _simulated(parts: SplitResult, options: dict[str, str]) -> Engine:  # noqa: ARG001 (no path)
    from services.store.engines.simulated import NO_FAULTS, SimulatedCluster  # noqa: PLC0415 (as above)

    faults = NO_FAULTS if options.get("faults") == "none" else None
    return SimulatedCluster(int(options.get("seed", "0")), faults).engine()


_ENGINES = {
    "lmdb": (_lmdb, frozenset[str]()),
    "fdb": (_foundationdb, frozenset({"directory"})),
    "simulated": (_simulated, frozenset({"seed", "faults"})),
}
