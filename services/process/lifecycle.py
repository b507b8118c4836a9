"""How a process of the mesh starts and stops.

Exit statuses: 0 after a clean stop (and for ``--check``), 1 when it could not start or failed, 2
when its settings or arguments are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import uvloop

from services.process import envoy, logs
from services.process.settings import ServerSettings, load

S = TypeVar("S", bound=ServerSettings)

_YOUNG_OBJECTS = 20_000
"""New objects after which Python looks for cycles among them; its own default is 700.

A busy server has thousands of objects of calls under way at any time. Looking at them again and
again finds nothing: calls make no cycles.
"""

log = logs.get_logger(__name__)


def run(
    settings_class: type[S],
    serve: Callable[[S, asyncio.Event], Awaitable[None]],
    argv: Sequence[str] | None = None,
) -> None:
    """Runs a service until SIGTERM or SIGINT; ``serve`` is handed its settings and a stop event.

    ``serve`` starts what it needs, waits for the event, drains, and returns. ``--check`` only
    validates the settings. Ends the process when something is wrong; returns after a clean stop.

    With the envoy face the process becomes Envoy, which imports the module of ``serve`` and finds
    there both ``serve`` and the settings by their names; then this does not return.
    """
    prefix = settings_class.variable("")
    arguments = argparse.ArgumentParser(
        description=f"Settings come from environment variables ({prefix}...)."
    )
    arguments.add_argument("--check", action="store_true", help="validate the settings and exit")
    options = arguments.parse_args(argv)
    if options.check:
        load(settings_class)
        return
    settings = configured(settings_class)
    try:
        if _wants_envoy(settings):
            envoy.become_envoy(settings.listener(), _importable(settings_class, serve))
        uvloop.run(_until_stopped(settings, serve))
    except Exception as error:  # noqa: BLE001 (whatever it is, it ends the process)
        report_failure(error)
        sys.exit(1)


def configured(settings_class: type[S]) -> S:
    """The settings from the environment, with the log set up as they say.

    With mistakes: prints them all and exits with status 2.
    """
    settings = load(settings_class)
    service = settings_class.variable("").removeprefix("TOLLMESH_").strip("_").lower()
    logs.configure(settings.log_level, settings.log_format, service=service)
    return settings


def report_failure(error: Exception) -> None:
    """Logs what ended the process, in one line."""
    # What has a name of its own explains itself; anything else needs its traceback.
    named = isinstance(error, OSError) or type(error).__module__.startswith("services.")
    told = f"{type(error).__name__}: {error}"
    log.critical("process_failed", error=told, exc_info=None if named else error)


def announce_ready(ready_file: Path | None, address: str) -> None:
    """Tells whoever waits that the process listens on ``address``: atomically, in ``ready_file``.

    Without a file only the log says so. Raises OSError when the file cannot be written.
    """
    _spare_the_collector()
    log.info("listening", address=address)
    if ready_file is not None:
        partial = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
        partial.write_text(f"{address}\n")
        partial.replace(ready_file)


def _spare_the_collector() -> None:
    """Has Python look for garbage seldom, and never again in what was made until now."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def _wants_envoy(settings: ServerSettings) -> bool:
    """Whether the process is to be Envoy; says so when it is not although it might."""
    if settings.face == "grpcio":
        return False
    reason = envoy.why_not()
    if reason is not None:
        log.info("face_chosen", face="grpcio", because=reason)
    return reason is None


def _importable(settings_class: type[S], serve: Callable[..., object]) -> str:
    """How ``services.process.inside`` finds both again: ``package.module:class:function``."""
    spec = serve.__globals__["__spec__"]
    return f"{spec.name}:{settings_class.__qualname__}:{serve.__qualname__}"


async def _until_stopped(settings: S, serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal(number: signal.Signals) -> None:
        log.info("stopping", signal=number.name)
        stop.set()
        loop.remove_signal_handler(number)  # a second one ends the process at once

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await serve(settings, stop)
    log.info("stopped")
