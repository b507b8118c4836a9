"""Work that outlives the call that began it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import copy_context
from dataclasses import replace
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
        context.run(replace(call, deadline=None, log_fields={}, trailing_metadata={}).activate)
    task = asyncio.get_running_loop().create_task(work, context=context)
    task.add_done_callback(_retrieve)
    return task


def _retrieve(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
