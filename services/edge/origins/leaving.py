"""Stops waiting for an origin when the client that it is for has gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.edge.http.connection import Connection


@asynccontextmanager
async def while_connected(connection: Connection) -> AsyncIterator[None]:
    """Ends the block, without an error, as soon as the connection has ended."""
    task = asyncio.current_task()
    gone = False

    def end(_: asyncio.Task[bool]) -> None:
        nonlocal gone
        if task is not None and not watch.cancelled():
            gone = True
            task.cancel()

    watch = asyncio.create_task(connection.ended.wait())
    watch.add_done_callback(end)
    try:
        yield
    except asyncio.CancelledError:
        # Another may have cancelled it as well; then it is theirs.
        if not gone or task is None or task.uncancel():
            raise
    finally:
        watch.remove_done_callback(end)
        watch.cancel()
