"""The Python side of a process that is Envoy: what Envoy imports, and what runs the service.

Envoy starts Python before it listens. So the service starts first; its server asks for the address
(``Host.listen``), Envoy then binds it, and the service goes on. When the service is done, so is the
process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from services.process import envoy, lifecycle, logs

Event = MutableMapping[str, Any]
Receive = Callable[[], asyncio.Future[Event]]
"""Not only awaitable, as ASGI has it: pyvoy gives a future."""
Send = Callable[[Event], Awaitable[None]]
"""pyvoy acts on the event at once; awaiting only holds back a sender that is too fast."""
Application = Callable[[Event, Receive, Send], object]
"""What takes requests, each in an object of a class of its own (``Host.listen``)."""

_BIND_S = 30.0
_POLL_S = 0.002

log = logs.get_logger(__name__)


class Host:
    """Envoy, as a server inside it sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        """What Envoy was told to listen on, ``host:port``."""
        self.wanted = asyncio.Event()
        """Set once the server is ready for Envoy to listen."""

    async def listen(self, application: Application, requests: type) -> str:
        """Has Envoy listen; gives the address with the port that was chosen.

        Args:
            application: takes each request, in the event loop.
            requests: the class of what ``application`` returns. It serves the request by itself:
                no task is made for it.

        Raises:
            OSError: the address cannot be had.
        """
        host, _, port = self.address.rpartition(":")
        try:
            _try_to_bind(host, int(port))
        except OSError as error:
            raise OSError(f"cannot listen on {self.address}: {error}") from error
        app.application = application
        factory: Any = _factory(requests)  # what it makes of requests is no task
        asyncio.get_running_loop().set_task_factory(factory)
        before = _listening_ports()
        self.wanted.set()
        async with asyncio.timeout(_BIND_S):
            while not (new := _listening_ports() - before):  # noqa: ASYNC110 (Envoy's own thread)
                await asyncio.sleep(_POLL_S)
        return f"{host}:{port if port != '0' else min(new)}"


class _Inside:
    """The ASGI application that Envoy calls."""

    _asgi_single_callable = True
    """Tells pyvoy that it is one, although it is not a coroutine function."""

    def __init__(self) -> None:
        self.host: Host | None = None
        self.application: Application | None = None

    def host_of(self, address: str) -> Host | None:
        """The host of a server that is to listen on ``address``; None when it is on its own."""
        host = self.host
        return host if host is not None and host.address == address else None

    def __call__(self, scope: Event, receive: Receive, send: Send) -> object:
        if self.application is not None:
            return self.application(scope, receive, send)
        return self._live(receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        """The lifespan of the process, from ASGI's point of view."""
        await receive()
        envoy.be_prompt()
        self.host = Host(os.environ[envoy.LISTEN_VARIABLE])
        serving = asyncio.create_task(_run(os.environ[envoy.SERVE_VARIABLE]))
        wanted = asyncio.create_task(self.host.wanted.wait())
        await asyncio.wait({serving, wanted}, return_when=asyncio.FIRST_COMPLETED)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        # Only when Envoy itself failed, and said why: another process took the port just now.
        log.critical("process_failed", error="Envoy ended by itself")
        os._exit(1)


app = _Inside()


async def _run(spec: str) -> NoReturn:
    """Runs the service to its end, which is the process's."""
    # What Envoy needed is not for the programs that the service may start.
    for name in ("LD_PRELOAD", "PYTHONHOME", "PYTHONPATH"):
        os.environ.pop(name, None)
    module_name, settings_name, serve_name = spec.split(":")
    module = import_module(module_name)
    settings = lifecycle.configured(getattr(module, settings_name))
    stop = asyncio.Event()
    _stop_on_signals(stop)
    status = 1
    try:
        await getattr(module, serve_name)(settings, stop)
        status = 0
        log.info("stopped")
    except Exception as error:  # noqa: BLE001 (whatever it is, it ends the process)
        lifecycle.report_failure(error)
    finally:
        # Everything is closed and written by now, or nobody reads the log; Envoy adds nothing.
        os._exit(status)


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def wait() -> None:
        number = signal.Signals(signal.sigwait(envoy.ENDING))
        loop.call_soon_threadsafe(stop.set)
        with suppress(OSError):  # nobody reads the log
            log.info("stopping", signal=number.name)
        _die_of(signal.sigwait(envoy.ENDING))  # a second one ends the process at once

    threading.Thread(target=wait, name="signals", daemon=True).start()


def _die_of(number: int) -> None:
    """Ends the process as the signal does where nobody handles it; Envoy does."""
    ctypes.CDLL(None).signal(number, None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.raise_signal(number)


def _factory(requests: type) -> Callable[..., object]:
    def make(loop: asyncio.AbstractEventLoop, work: Any, **options: Any) -> object:  # noqa: ANN401 (a coroutine of any kind)
        if isinstance(work, requests):
            return work
        return asyncio.Task(work, loop=loop, **options)

    return make


def _try_to_bind(host: str, port: int) -> None:
    """Raises OSError with the system's reason; Envoy would end with one of its own."""
    if port:
        family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        socket.create_server((host.strip("[]"), port), family=family).close()


def _listening_ports() -> set[int]:
    """The ports that this process listens on, by whatever library."""
    ports = set()
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 (names are numbers)
        try:
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    ports.add(found.getsockname()[1])
        except (OSError, IndexError):
            continue  # not a socket, or closed just now
    return ports
