"""What is particular to the embedded engine: one owner, a growing map, full and broken disks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from operator import methodcaller
from pathlib import Path

import pytest

from services.store.engines.lmdb import LmdbEngine
from services.store.errors import StoreInUseError, StoreUnavailableError
from services.store.group_commit import GroupCommit
from services.store.open import open_store
from services.store.port import Operation, ReadTransaction, Store, Transaction
from tests.support import store_writer

_OPEN = """
import asyncio, sys
from services.store.open import open_store
asyncio.run(open_store(sys.argv[1]))
"""


def put(number: int, size_bytes: int, tx: Transaction) -> None:
    tx.set(b"%06d" % number, b"v" * size_bytes)


@asynccontextmanager
async def opened(directory: Path, map_bytes: int) -> AsyncIterator[Store]:
    store = GroupCommit(LmdbEngine(directory, map_bytes=map_bytes))
    try:
        yield store
    finally:
        await store.close()


async def test_a_second_owner_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/store"
    store = await open_store(url)
    with pytest.raises(StoreInUseError, match="open in another process"):
        await open_store(url)
    await store.close()
    again = await open_store(url)
    await again.close()


async def test_a_second_process_is_refused_with_a_clear_error(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/store"
    store = await open_store(url)
    ended = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _OPEN, url, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await ended.communicate()
    assert ended.returncode == 1
    assert b"StoreInUseError: the store in " in errors
    assert str(tmp_path).encode() in errors
    await store.commit(Operation(partial(put, 1, 1)))
    await store.close()


async def test_the_owner_of_a_killed_process_is_no_obstacle(tmp_path: Path) -> None:
    url = f"lmdb://{tmp_path}/store"
    process = await store_writer.start(url, 1)
    await process.first_line()
    await process.kill()
    store = await open_store(url)
    await store.close()


async def test_the_map_grows_with_the_data_while_reads_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path, map_bytes=1 << 20) as store:
        for number in range(0, 200, 10):
            writes = [
                store.commit(Operation(partial(put, each, 60_000)))
                for each in range(number, number + 10)
            ]
            reads = [store.read(lambda tx: tx.range(b"", b"\xff", limit=16)) for _ in range(4)]
            await asyncio.gather(*writes, *reads)
    async with opened(tmp_path, map_bytes=1 << 20) as store:
        await store.commit(Operation(partial(put, 200, 60_000)))
        for number in range(201):
            found = await store.read(methodcaller("get", b"%06d" % number))
            assert found.result == b"v" * 60_000


async def test_a_long_read_sees_one_state_while_the_map_grows(tmp_path: Path) -> None:
    async with opened(tmp_path, map_bytes=1 << 20) as store:
        for number in range(0, 1000, 100):
            await asyncio.gather(
                *(store.commit(Operation(partial(put, n, 8))) for n in range(number, number + 100))
            )

        def rewrite(byte: bytes, tx: Transaction) -> None:
            for number in range(1_000):
                tx.set(b"%06d" % number, byte * 700)

        async def read_all() -> None:
            for _ in range(10):
                pairs = (await store.read(lambda tx: tx.range(b"", b"\xff"))).result
                assert len(pairs) == 1_000
                assert len({value for _, value in pairs}) == 1

        await store.commit(Operation(partial(rewrite, b"0")))
        await asyncio.gather(
            *(store.commit(Operation(partial(rewrite, b"%d" % number))) for number in range(8)),
            read_all(),
            read_all(),
            read_all(),
        )


@pytest.mark.parametrize("place", ["a file", "/proc/store"])
async def test_a_directory_that_cannot_be_used_is_reported(tmp_path: Path, place: str) -> None:
    (tmp_path / "a file").write_text("in the way")
    with pytest.raises(StoreUnavailableError, match="cannot open the store in"):
        await open_store(f"lmdb://{(tmp_path / place).as_posix()}")


async def test_damaged_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1_000)
    with pytest.raises(StoreUnavailableError, match="cannot open the store in"):
        await open_store(f"lmdb://{tmp_path}")
    (tmp_path / "data.mdb").unlink()
    store = await open_store(f"lmdb://{tmp_path}")
    await store.close()


_FULL_DISK = """
import asyncio, resource, signal, sys
from functools import partial
from services.store.errors import StoreUnavailableError
from services.store.open import open_store
from services.store.port import Operation

def put(number, tx):
    tx.set(b"%06d" % number, b"v" * 50_000)
    tx.append(b"log/", b"%d" % number)

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = await open_store(sys.argv[1])
    written = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, resource.RLIM_INFINITY))
    try:
        while True:
            await store.commit(Operation(partial(put, written)))
            written += 1
            assert written < 1_000, "the disk never filled up"
    except StoreUnavailableError as error:
        print(error)
    assert written > 10
    read = await store.read(lambda tx: len(tx.range(b"log/", b"log0")))
    assert read.result == written, (read.result, written)
    for _ in range(3):
        try:
            await store.commit(Operation(partial(put, written)))
            raise AssertionError("wrote to a full disk")
        except StoreUnavailableError:
            pass
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    for number in range(written, written + 30):
        await store.commit(Operation(partial(put, number)))
    read = await store.read(lambda tx: len(tx.range(b"log/", b"log0")))
    assert read.result == written + 30, (read.result, written)
    await store.close()

asyncio.run(main())
"""


def test_a_full_disk_is_reported_and_written_again_when_it_has_room(tmp_path: Path) -> None:
    """The disk of a process that may not make files larger than 2 MB is full soon."""
    ended = subprocess.run(
        [sys.executable, "-c", _FULL_DISK, f"lmdb://{tmp_path}/store"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    assert line.startswith(f"cannot write the store in {tmp_path}/store: ")
    assert "; make room there" in line


_READ_ONLY = """
import asyncio, os, sys
from pathlib import Path
from services.store.engines import lmdb
from services.store.errors import StoreUnavailableError
from services.store.open import open_store
from services.store.port import Operation

async def main():
    directory = Path(sys.argv[1])
    first = await open_store(f"lmdb://{directory.parent}/first")
    await first.commit(Operation(lambda tx: tx.set(b"k", b"v")))
    await first.close()  # all modules are loaded: another user may not be able to read them
    if os.geteuid() == 0:  # permissions do not bind root
        os.chown(directory, 65534, 65534)
        os.setgid(65534)
        os.setuid(65534)
    directory.chmod(0o555)
    try:
        await open_store(f"lmdb://{directory}")
    except StoreUnavailableError as error:
        print(error)
    directory.chmod(0o755)
    store = await open_store(f"lmdb://{directory}")
    await store.commit(Operation(lambda tx: tx.set(b"k", b"v")))
    await store.close()

asyncio.run(main())
"""


def test_a_read_only_directory_is_reported_and_opens_when_it_is_writable() -> None:
    # Not pytest's own directory: another user cannot pass through that.
    with tempfile.TemporaryDirectory() as parent:
        directory = Path(parent) / "store"
        directory.mkdir()
        Path(parent).chmod(0o755)
        ended = subprocess.run(
            [sys.executable, "-c", _READ_ONLY, str(directory)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stderr
        (line,) = ended.stdout.splitlines()
        assert line.startswith(f"cannot open the store in {directory}: ")
        assert line.endswith("; make it writable for the user of this service")


async def test_reads_that_fail_do_not_use_up_the_readers(tmp_path: Path) -> None:
    store = await open_store(f"lmdb://{tmp_path}/store")

    def refuse(tx: ReadTransaction) -> None:
        tx.get(b"key")
        tx.range(b"a", b"z")
        raise KeyError("kept")

    kept = []  # with its traceback, as a log or a cycle of references keeps an error for a while
    for _ in range(300):
        with pytest.raises(KeyError) as caught:
            await store.read(refuse)
        kept.append(caught.value)
        with pytest.raises(KeyError) as caught:
            await store.commit(Operation(refuse))
        kept.append(caught.value)
    await store.close()
