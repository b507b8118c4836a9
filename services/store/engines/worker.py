"""A thread that does one thing after another. Leaner than an executor: one wake-up each way."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue


class Worker:
    """See the module. The thread begins with the first call."""

    def __init__(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._loop = loop
        self._calls: SimpleQueue[tuple[Callable[[], None], asyncio.Future[None]] | None] = (
            SimpleQueue()
        )
        # A daemon: a process that ends without closing its store does not wait for it.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def call(self, function: Callable[[], None]) -> asyncio.Future[None]:
        """Has a function called; the future ends when it returns, or with its error."""
        if not self._thread.ident:
            self._thread.start()
        done: asyncio.Future[None] = self._loop.create_future()
        self._calls.put((function, done))
        return done

    def close(self) -> None:
        """Ends the thread after what it was handed."""
        if self._thread.ident:
            self._calls.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            function, done = call
            error: Exception | None = None
            try:
                function()
            except Exception as failure:  # noqa: BLE001 (whatever it is, the event loop gets it)
                error = failure
            with suppress(RuntimeError):  # the event loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(_end, done, error)


def _end(done: asyncio.Future[None], error: Exception | None) -> None:
    if done.done():  # its task was cancelled
        return
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
