"""Blocking clients, many at once, of a server that may run in the test's own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


async def on_threads(
    call: Callable[..., T], arguments: Iterable[tuple[Any, ...]], *, at_once: int
) -> list[T]:
    """Calls once for each of these arguments; the answers, in their order.

    When one fails, those that have not begun never do, and nobody waits for those that have: while
    the loop waited, a server in it could not answer them.
    """
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(at_once, "client")
    try:
        return await asyncio.gather(
            *(loop.run_in_executor(pool, call, *each) for each in arguments)
        )
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
