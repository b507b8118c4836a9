"""Following a log: every whole line, through rotations and restarts."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from services.edge.door.log_file import LogFile
from services.rpc.errors import DependencyUnavailableError
from tests.edge.conftest import until


class Taker:
    """Takes lines; fails as often as it is told, before it takes any."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.failures = 0

    async def __call__(self, lines: Sequence[bytes]) -> None:
        if self.failures:
            self.failures -= 1
            raise DependencyUnavailableError
        self.lines += lines


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.log"


@asynccontextmanager
async def following(path: Path, taker: Taker) -> AsyncIterator[None]:
    position = path.with_name("position")
    task = asyncio.create_task(LogFile(path, position, taker, pause_s=0.005).follow())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def rotate(path: Path, number: int) -> None:
    path.rename(f"{path}.{number}")


async def taken(taker: Taker, *lines: bytes) -> None:
    await until(lambda: len(taker.lines) >= len(lines), f"{lines}")
    assert taker.lines == list(lines)


async def test_a_line_is_taken_when_it_is_whole(path: Path) -> None:
    taker = Taker()
    async with following(path, taker):
        append(path, "one\ntw")
        await taken(taker, b"one")
        append(path, "o\n")
        await taken(taker, b"one", b"two")


async def test_what_was_refused_is_offered_again(path: Path) -> None:
    taker = Taker()
    taker.failures = 3
    append(path, "one\n")
    async with following(path, taker):
        await taken(taker, b"one")


async def test_a_renamed_file_is_read_to_its_end(path: Path) -> None:
    taker = Taker()
    with path.open("a", buffering=1) as old:
        async with following(path, taker):
            old.write("one\n")
            await taken(taker, b"one")
            rotate(path, 1)
            old.write("two\n")
            await taken(taker, b"one", b"two")
            append(path, "three\n")
            await taken(taker, b"one", b"two", b"three")
            old.write("four\n")
            await taken(taker, b"one", b"two", b"three", b"four")


async def test_a_restart_goes_on_where_it_was(path: Path) -> None:
    taker = Taker()
    append(path, "one\n")
    async with following(path, taker):
        await taken(taker, b"one")
        await until(path.with_name("position").exists)
    append(path, "two\n")
    async with following(path, taker):
        await taken(taker, b"one", b"two")


async def test_what_was_rotated_while_nobody_looked_is_read(path: Path) -> None:
    taker = Taker()
    append(path, "one\n")
    async with following(path, taker):
        await taken(taker, b"one")
        await until(path.with_name("position").exists)
    append(path, "two\n")
    rotate(path, 2)
    append(path, "three\n")
    rotate(path, 1)
    append(path, "four\n")
    async with following(path, taker):
        await until(lambda: len(taker.lines) == 4)
    assert sorted(taker.lines) == [b"four", b"one", b"three", b"two"]


async def test_a_new_file_with_an_old_inode_is_read_from_its_start(path: Path) -> None:
    taker = Taker()
    append(path, "one\n")
    async with following(path, taker):
        await taken(taker, b"one")
        await until(path.with_name("position").exists)
    with path.open("r+") as file:  # the same inode, other contents, and longer than it was
        file.write("two\nthree\n")
    async with following(path, taker):
        await taken(taker, b"one", b"two", b"three")


async def test_a_lost_position_costs_reading_again(path: Path) -> None:
    taker = Taker()
    append(path, "one\n")
    path.with_name("position").write_text("")
    async with following(path, taker):
        await taken(taker, b"one")


async def test_a_line_without_end_is_passed_over(path: Path) -> None:
    taker = Taker()
    append(path, "x" * (600 * 1024) + "\nlast\n")
    async with following(path, taker):
        await until(lambda: bool(taker.lines) and taker.lines[-1] == b"last")
    assert len(taker.lines) == 2


async def test_every_line_is_taken_once_through_rotations(path: Path, dice: random.Random) -> None:
    taker = Taker()
    written = [f"{number}".encode() for number in range(2000)]
    async with following(path, taker):
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for rotation, line in enumerate(written):
            os.write(file, line + b"\n")
            if dice.random() < 0.01:
                rotate(path, rotation)
                await asyncio.sleep(0)  # the follower looks, or does not
                os.close(file)
                file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.close(file)
        await until(lambda: len(taker.lines) >= len(written))
    assert sorted(taker.lines, key=int) == written
