"""The URLs that name a store."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from services.store.errors import EngineMissingError
from services.store.open import checked_url, open_store
from services.store.port import Operation


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/var/lib/tollmesh",
        "postgres://localhost/db",
        "lmdb://relative/path",
        "lmdb:relative",
        "lmdb:///path?sync=no",
        "fdb:///file?directory=a&tenant=b",
        "simulated:?seed=1&speed=2",
        "simulated:?seed=x",
    ],
)
async def test_a_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        await open_store(url)


@pytest.mark.parametrize("url", ["postgres://localhost/db", "lmdb:relative", "fdb:/f?tenant=b"])
def test_a_setting_that_names_no_store_is_refused_before_anything_is_opened(url: str) -> None:
    with pytest.raises(ValueError, match=r"store|option"):
        checked_url(url)


def test_a_setting_that_names_a_store_stays_as_it_is(tmp_path: Path) -> None:
    assert checked_url(f"lmdb://{tmp_path}/new") == f"lmdb://{tmp_path}/new"
    assert not (tmp_path / "new").exists()


async def test_a_path_with_escapes_is_the_directory_that_it_says(tmp_path: Path) -> None:
    store = await open_store(f"lmdb://{tmp_path}/a%20directory/of%20stores")
    await store.commit(Operation(lambda tx: tx.set(b"k", b"v")))
    await store.close()
    assert (tmp_path / "a directory" / "of stores" / "data.mdb").exists()


async def test_a_simulated_store_works_with_and_without_faults() -> None:
    for url in ("simulated:?seed=3", "simulated:?seed=3&faults=none", "simulated:"):
        store = await open_store(url)
        await store.commit(Operation(lambda tx: tx.set(b"k", b"v")))
        assert (await store.read(lambda tx: tx.get(b"k"))).result == b"v"
        await store.close()


_WITHOUT_LIBRARY = """
import asyncio, ctypes, ctypes.util
from services.store.errors import EngineMissingError

class Missing:
    def __init__(self, *arguments):
        raise OSError("no such library")

ctypes.CDLL, ctypes.util.find_library = Missing, lambda name: None
from services.store.engines import foundationdb
from services.store.open import checked_url, open_store
try:
    asyncio.run(open_store("fdb:///nowhere/fdb.cluster"))
except EngineMissingError as error:
    print(error)
"""


def test_a_missing_client_library_is_one_clear_line_and_only_where_it_is_needed() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _WITHOUT_LIBRARY], capture_output=True, text=True, check=True
    )
    (line,) = ended.stdout.splitlines()
    assert "libfdb_c 7.3" in line
    assert "install" in line
    assert not ended.stderr
    assert issubclass(EngineMissingError, Exception)
