"""How a process of the mesh starts and stops.

Exit statuses: 0 after a clean stop (and for ``--check``), 1 when it could not start or failed, 2
when its settings or arguments are wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import uvloop

from services.process import logs
from services.process.settings import ServerSettings, load

S = TypeVar("S", bound=ServerSettings)

log = logs.get_logger(__name__)


def run(
    settings_class: type[S],
    serve: Callable[[S, asyncio.Event], Awaitable[None]],
    argv: Sequence[str] | None = None,
) -> None:
    """Runs a service until SIGTERM or SIGINT; ``serve`` is handed its settings and a stop event.

    ``serve`` starts what it needs, waits for the event, drains, and returns. ``--check`` only
    validates the settings. Ends the process when something is wrong; returns after a clean stop.
    """
    prefix = settings_class.variable("")
    arguments = argparse.ArgumentParser(
        description=f"Settings come from environment variables ({prefix}...)."
    )
    arguments.add_argument("--check", action="store_true", help="validate the settings and exit")
    options = arguments.parse_args(argv)
    settings = load(settings_class)
    if options.check:
        return
    service = prefix.removeprefix("TOLLMESH_").strip("_").lower()
    logs.configure(settings.log_level, settings.log_format, service=service)
    try:
        uvloop.run(_until_stopped(settings, serve))
    except Exception as error:
        # What has a name of its own explains itself; anything else needs its traceback.
        named = isinstance(error, OSError) or type(error).__module__.startswith("services.")
        log.critical("process_failed", error=f"{type(error).__name__}: {error}", exc_info=not named)
        sys.exit(1)


def announce_ready(ready_file: Path | None, address: str) -> None:
    """Tells whoever waits that the process listens on ``address``: atomically, in ``ready_file``.

    Without a file only the log says so. Raises OSError when the file cannot be written.
    """
    log.info("listening", address=address)
    if ready_file is not None:
        partial = ready_file.with_name(f".{ready_file.name}.{os.getpid()}")
        partial.write_text(f"{address}\n")
        partial.replace(ready_file)


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
