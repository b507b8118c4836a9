"""Answers of handlers that wait for one thing only, and so need no task of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Later(Generic[T]):
    """What is waited for, and how the answer is made of it.

    A handler that gives this is a plain function instead of a coroutine function: it is called,
    and what it returns is waited for. Where the face can, no task is made for such a call, which is
    a good part of what a small call costs. Awaiting it does the same in a task.

    When the call is cancelled, so is the future.
    """

    __slots__ = ("answer", "future")

    def __init__(self, future: asyncio.Future[Any], answer: Callable[[Any], T]) -> None:
        """``answer`` is given the future's result; it waits for nothing and may raise."""
        self.future = future
        self.answer = answer

    def __await__(self) -> Generator[Any, None, T]:
        return self.answer((yield from self.future))
