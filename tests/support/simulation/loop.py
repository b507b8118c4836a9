"""An event loop in virtual time, in which everything happens in the same order every time.

Nothing waits for real: when no callback is ready the clock jumps to the next timer. There is no
input and no thread, so a run depends on nothing but the program and its dice.
"""

from __future__ import annotations

import asyncio
import itertools
import selectors
from collections.abc import Coroutine, Generator, Mapping
from contextvars import Context, ContextVar
from selectors import SelectorKey
from typing import Any, TypeVar

T = TypeVar("T")

Work = Generator[Any, None, T] | Coroutine[Any, Any, T]

OWNER: ContextVar[set[asyncio.Task[Any]] | None] = ContextVar("owner", default=None)
"""The tasks of the simulated process in which the code runs; a task that it starts joins them."""


class StuckError(RuntimeError):
    """Everybody waits, and nothing will ever happen."""


class NumberedTask(asyncio.Task[T]):
    """A task whose hash is its number: sets of tasks (``TaskGroup``) are in the same order always.

    By default the hash is the address in memory.
    """

    def __init__(self, work: Work[T], *, loop: VirtualLoop, context: Context | None = None) -> None:
        self._number = next(loop.numbers)  # before asyncio puts the task in a set
        super().__init__(work, loop=loop, context=context)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._clock = _Clock()
        self.numbers = itertools.count()
        super().__init__(self._clock)
        self.set_task_factory(_numbered)  # type: ignore[arg-type]  # its type is narrower than asyncio's

    def time(self) -> float:
        """Seconds since the loop was made."""
        return self._clock.now_s

    def skip(self, seconds: float) -> None:
        """Lets time pass in which nobody does anything; timers that are over by then fire late."""
        self._clock.now_s += seconds


class _Clock(selectors.BaseSelector):
    """In place of waiting for input, it moves the time on."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._keys: dict[Any, SelectorKey] = {}

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        if timeout is None:
            raise StuckError("no task can go on, and no timer is set")
        self.now_s += max(0.0, timeout)
        return []

    def register(self, fileobj: Any, events: int, data: object = None) -> SelectorKey:  # noqa: ANN401 (as selectors has it)
        """Of the loop's own pipe, through which nothing ever comes."""
        self._keys[fileobj] = SelectorKey(fileobj, int(fileobj), events, data)
        return self._keys[fileobj]

    def unregister(self, fileobj: Any) -> SelectorKey:  # noqa: ANN401 (as selectors has it)
        return self._keys.pop(fileobj)

    def get_map(self) -> Mapping[Any, SelectorKey]:
        return self._keys


def _numbered(loop: VirtualLoop, work: Work[T], context: Context | None = None) -> NumberedTask[T]:
    task = NumberedTask(work, loop=loop, context=context)
    owned = OWNER.get() if context is None else context.get(OWNER, None)
    if owned is not None:
        owned.add(task)
        task.add_done_callback(owned.discard)
    return task


def run(work: Coroutine[Any, Any, T]) -> T:
    """What ``asyncio.run`` is, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
