"""The log of the embedded engine, byte by byte: what crashes, full disks or damage leave of it."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.store.engines.redo import segment
from services.store.engines.redo.log import Log, paths
from services.store.engines.redo.records import (
    BLOCK_BYTES,
    HEADER_BYTES,
    Changes,
    blocks_bytes,
    encode,
)
from services.store.engines.redo.recovery import LogDamagedError, recover
from tests.support.seeds import chosen_seed

STORE = b"the id of a store"[:16]
LARGE = 4_200
"""A value that makes a record of two blocks."""


def changes(version: int, size_bytes: int = 5) -> Changes:
    return Changes([(b"a", b"b")], {b"key %d" % version: b"v" * size_bytes, b"gone": None})


def append(log: Log, version: int, size_bytes: int = 5) -> None:
    log.append(version, encode(changes(version, size_bytes)))


def written(directory: Path, sizes: list[int], segment_bytes: int = 1 << 20) -> Log:
    """A log with the versions from 1 on, as a killed process leaves it."""
    log = Log(directory, STORE, segment_bytes)
    for version, size_bytes in enumerate(sizes, 1):
        if not log.fits(len(encode(changes(version, size_bytes)))):
            log.turn()
        append(log, version, size_bytes)
    return log


def recovered(directory: Path, version: int = 0, store_id: bytes = STORE) -> list[Changes]:
    return list(recover(directory, store_id, version))


def expected(sizes: list[int], first: int = 1) -> list[Changes]:
    found = [changes(version, size) for version, size in enumerate(sizes, 1)]
    return found[first - 1 :]


def test_what_was_written_is_read_back_from_any_version_on(tmp_path: Path) -> None:
    sizes = [5, LARGE, 0, 20_000, 5] * 4
    written(tmp_path, sizes, segment_bytes=40_000).close(empty=False)
    assert len(paths(tmp_path)) > 2
    for version in range(len(sizes) + 1):
        assert recovered(tmp_path, version) == expected(sizes, version + 1)
    assert recovered(tmp_path, 100) == []


def test_a_last_record_that_is_torn_at_any_byte_is_not_there_and_all_before_it_is(
    tmp_path: Path,
) -> None:
    """Cut off, only begun, or with a changed byte: whichever way a crash leaves it."""
    sizes = [5, 5, LARGE]
    written(tmp_path, sizes).close(empty=False)
    (path,) = paths(tmp_path)
    whole = path.read_bytes()
    begin = 2 * BLOCK_BYTES
    end = begin + HEADER_BYTES + len(encode(changes(3, LARGE)))
    assert end > begin + BLOCK_BYTES
    with path.open("r+b", buffering=0) as file:
        for at in range(end - 1, begin - 1, -1):
            for changed in (bytes([whole[at] ^ 0x40]), b"\x00"):
                file.seek(at)
                file.write(changed)
                if changed != b"\x00" or any(whole[at:end]):  # the last bytes may be zeros
                    assert recovered(tmp_path) == expected(sizes[:2]), at
            # The zero stays, so in the end nothing of it has reached the disk.
    path.write_bytes(whole)
    for at in range(end - 1, begin - 1, -1):
        os.truncate(path, at)
        assert recovered(tmp_path) == expected(sizes[:2]), at
    for at in (end, end + 1, begin + 2 * BLOCK_BYTES):  # what stands behind it does not matter
        path.write_bytes(whole[:at] + b"x" * 50)
        assert recovered(tmp_path) == expected(sizes)


def test_any_mixture_of_the_blocks_of_a_last_record_is_not_there(tmp_path: Path) -> None:
    """The disk writes them in any order, over whatever an earlier use of the file left."""
    seed = chosen_seed()
    dice = random.Random(seed)
    written(tmp_path, [5, 40_000]).close(empty=False)
    (path,) = paths(tmp_path)
    whole = path.read_bytes()
    begin, sector = BLOCK_BYTES, 512
    end = begin + HEADER_BYTES + len(encode(changes(2, 40_000)))
    for _ in range(200):
        data = bytearray(whole)
        lost = [at for at in range(begin, end, sector) if dice.random() < dice.random()]
        for at in lost:
            data[at : at + sector] = dice.choice((bytes(sector), dice.randbytes(sector)))
        path.write_bytes(data)
        assert recovered(tmp_path) == expected([5] if lost else [5, 40_000])


def test_damage_in_front_of_a_whole_record_is_refused(tmp_path: Path) -> None:
    """Every byte of a record in the middle, in the segment in use and in the one before."""
    sizes = [300] * 12
    written(tmp_path, sizes, segment_bytes=6 * BLOCK_BYTES).close(empty=False)
    first, second = paths(tmp_path)
    for path, number in ((first, 0), (first, 3), (first, 5), (second, 0), (second, 4)):
        whole = path.read_bytes()
        begin = number * BLOCK_BYTES
        for at in range(begin, begin + HEADER_BYTES + len(encode(changes(1, 300)))):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(LogDamagedError, match=r"put the directory back from a backup"):
                recovered(tmp_path)
        path.write_bytes(whole)
    assert recovered(tmp_path) == expected(sizes)
    # What the tree has already may be damaged.
    first.write_bytes(bytes(first.stat().st_size))
    assert recovered(tmp_path, 6) == expected(sizes, 7)


def test_a_segment_that_is_missing_is_noticed(tmp_path: Path) -> None:
    written(tmp_path, [5] * 12, segment_bytes=4 * BLOCK_BYTES).close(empty=False)
    first, second, _ = paths(tmp_path)
    second.rename(tmp_path / "elsewhere")
    with pytest.raises(LogDamagedError, match="versions 5 to 8 are missing"):
        recovered(tmp_path)
    (tmp_path / "elsewhere").rename(second)
    first.unlink()
    with pytest.raises(LogDamagedError, match="versions 1 to 4 are missing"):
        recovered(tmp_path)
    assert recovered(tmp_path, 4) == expected([5] * 12, 5)


def test_the_log_of_another_store_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [5]).close(empty=False)
    with pytest.raises(LogDamagedError, match="is the log of another store"):
        recovered(tmp_path, 0, b"another")


def test_a_value_that_looks_like_a_record_of_another_store_changes_nothing(tmp_path: Path) -> None:
    """Callers do not know the id, so this is the best that they can do."""
    forged = tmp_path / "forged"
    forged.mkdir()
    log = Log(forged, b"guessed id......", 1 << 20)
    for version in range(1, 4):
        append(log, version)
    log.close(empty=False)
    (path,) = paths(forged)
    records = path.read_bytes()[: 3 * BLOCK_BYTES]
    log = Log(tmp_path, STORE, 1 << 20)
    # Behind the header and the key, the value begins a block earlier than the forged records.
    padding = b"x" * (BLOCK_BYTES - HEADER_BYTES - len(encode(Changes([], {b"k": records}))) % 4096)
    for shift in range(64):
        value = padding[shift:] + records
        log.append(1 + shift, encode(Changes([], {b"k": value})))
    append(log, 65, 5)
    log.close(empty=False)
    assert len(recovered(tmp_path)) == 65


def test_a_segment_is_used_again_and_what_it_held_does_not_come_back(tmp_path: Path) -> None:
    log = Log(tmp_path, STORE, 4 * BLOCK_BYTES)
    in_tree = 0
    for version in range(1, 60):
        if not log.fits(100):
            log.turn()
            log.retire()
            in_tree = version - 1
        append(log, version)
        assert recovered(tmp_path, in_tree) == [
            changes(each) for each in range(in_tree + 1, version + 1)
        ]
    assert len(paths(tmp_path)) == 2
    log.close(empty=True)
    assert paths(tmp_path) == []


def test_a_log_goes_on_behind_one_that_was_torn(tmp_path: Path) -> None:
    """A process is killed, recovers, is killed again before the tree has what it recovered."""
    written(tmp_path, [5, 5, LARGE]).close(empty=False)
    (path,) = paths(tmp_path)
    data = path.read_bytes()
    at = 3 * BLOCK_BYTES
    path.write_bytes(data[:at] + bytes(len(data) - at))
    assert recovered(tmp_path) == expected([5, 5])
    log = Log(tmp_path, STORE, 1 << 20)
    append(log, 3, 7)
    append(log, 4, 8)
    log.close(empty=False)
    assert recovered(tmp_path) == expected([5, 5, 7, 8])


class FailingDisk:
    """Writes of a segment that fail at times, after some or all of the bytes were written."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.broken = False
        """Whether every write fails."""
        self.fails = False
        """Whether the next write fails."""

    def pwrite(self, file: int, data: memoryview, at: int) -> int:
        """As ``os.pwrite``."""
        if self.fails or self.broken:
            self.fails = False
            blocks = self._dice.randint(0, len(data) // BLOCK_BYTES)
            if blocks:
                os.pwrite(file, data[: blocks * BLOCK_BYTES], at)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.pwrite(file, data, at)


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, disk: FailingDisk) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(segment, "_pwrite", disk.pwrite)
        yield


def test_a_record_whose_write_failed_is_never_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when all of it is on the disk. As long as that cannot be undone, nothing is written."""
    seed = chosen_seed()
    dice = random.Random(seed)
    disk = FailingDisk(dice)
    log = Log(tmp_path, STORE, 8 * BLOCK_BYTES)
    kept: list[Changes] = []
    undone, failures = True, 0
    with failing(monkeypatch, disk):
        for _ in range(400):
            new = changes(len(kept) + 1, dice.choice((5, LARGE, 10_000)))
            disk.fails, disk.broken = dice.random() < 0.4, dice.random() < 0.1
            failed = disk.fails or disk.broken
            try:
                if not log.fits(len(encode(new))):
                    log.turn()
                log.append(len(kept) + 1, encode(new))
            except OSError:
                assert failed
                failures += 1
                undone = undone and not disk.broken
            else:
                kept.append(new)
                undone = True
            assert recovered(tmp_path)[: len(kept)] == kept
            assert len(recovered(tmp_path)) <= len(kept) + (not undone)
    assert failures > 50
    log.close(empty=False)


def test_a_file_system_without_direct_writes_serves_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return os.open(path, flags, mode)

    monkeypatch.setattr(segment, "_open_file", refusing)
    sizes = [5, LARGE, 20_000] * 3
    written(tmp_path, sizes, 10 * BLOCK_BYTES).close(empty=False)
    assert recovered(tmp_path) == expected(sizes)
    shutil.rmtree(tmp_path)


def test_a_record_takes_whole_blocks() -> None:
    assert blocks_bytes(0) == BLOCK_BYTES
    assert blocks_bytes(BLOCK_BYTES - HEADER_BYTES) == BLOCK_BYTES
    assert blocks_bytes(BLOCK_BYTES - HEADER_BYTES + 1) == 2 * BLOCK_BYTES
