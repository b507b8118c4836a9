"""A service that hangs is asked by one caller at a time; the others are refused at once."""

from __future__ import annotations

import asyncio

import pytest

from services.edge.behind import Behind, NotAskedError
from services.rpc.errors import (
    DeadlineExceededError,
    DependencyUnavailableError,
    InvalidArgumentError,
    NoAnswerError,
    ServiceError,
)


async def _hang() -> None:
    raise NoAnswerError


async def _answer() -> str:
    return "here"


@pytest.fixture
async def behind() -> Behind:
    """One that has hung three times."""
    behind = Behind("test")
    for _ in range(3):
        assert not behind.is_suspect
        with pytest.raises(DependencyUnavailableError):
            await behind.ask(_hang)
    assert behind.is_suspect
    return behind


async def test_one_caller_looks_and_the_others_are_refused(behind: Behind) -> None:
    end, asked = asyncio.Event(), 0

    async def slow() -> str:
        nonlocal asked
        asked += 1
        await end.wait()
        return "here"

    looking = asyncio.create_task(behind.ask(slow))
    await asyncio.sleep(0)
    for _ in range(5):
        with pytest.raises(NotAskedError):
            await behind.ask(slow)
        with pytest.raises(NotAskedError):
            behind.check()
    end.set()
    assert await looking == "here"
    assert asked == 1
    behind.check()
    assert [*await asyncio.gather(behind.ask(_answer), behind.ask(_answer))] == ["here", "here"]


async def test_who_looks_in_vain_or_goes_away_leaves_room_for_the_next(behind: Behind) -> None:
    for _ in range(3):
        with pytest.raises(DependencyUnavailableError):
            await behind.ask(_hang)
    gone = asyncio.create_task(behind.ask(asyncio.Event().wait))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert await behind.ask(_answer) == "here"


@pytest.mark.parametrize("refusal", [InvalidArgumentError, DeadlineExceededError])
async def test_a_refusal_is_an_answer(behind: Behind, refusal: type[ServiceError]) -> None:
    async def refuse() -> None:
        raise refusal

    with pytest.raises(refusal):
        await behind.ask(refuse)
    assert not behind.is_suspect
