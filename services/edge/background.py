"""Work that outlives the call that began it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextvars import copy_context
from typing import Any, TypeVar

from services.rpc.call import Call

T = TypeVar("T")


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Starts a task that keeps the current call's ids, for logs and traces, but not its deadline.

    The starter keeps the task. What it raises is not lost on those who await it, and no warning
    when nobody does.
    """
    context = copy_context()
    call = Call.current()
    if call is not None and call.deadline is not None:
        lasting = Call(
            call.method,
            call.metadata,
            request_id=call.request_id,
            trace_parent=call.trace_parent,
            peer=call.peer,
            identity=call.identity,
        )
        context.run(lasting.activate)
    task = asyncio.get_running_loop().create_task(work, context=context)
    task.add_done_callback(_retrieve)
    return task


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Runs what must not be broken off in the middle: returns when it has ended, even cancelled."""
    task = start(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def ended(tasks: Iterable[asyncio.Task[Any]], timeout_s: float) -> int:
    """Waits until tasks have ended, and cancels those that have not by then: how many these are."""
    waiting = set(tasks)
    if not waiting:
        return 0
    _, late = await asyncio.wait(waiting, timeout=timeout_s)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return len(late)


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
