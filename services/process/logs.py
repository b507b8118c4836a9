"""Logs: one JSON object a line on standard error, or readable lines in a terminal.

Event names are constants, values are keys: ``log.info("index_advanced", network=name, block=n)``.
Never a secret or a whole API key. Lines written while a call is served carry its request id.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from services.rpc.call import Call

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]

_STDERR = 2


def configure(level: LogLevel = "info", format: LogFormat = "auto", *, service: str = "") -> None:  # noqa: A002 (the setting's name)
    """Decides, once for the process, what is logged and how.

    Args:
        level: the lowest level that is written.
        format: ``auto`` is ``console`` in a terminal and ``json`` elsewhere.
        service: the process's name, on every line.
    """
    in_terminal = sys.stderr is not None and sys.stderr.isatty()
    console = format == "console" or (format == "auto" and in_terminal)
    structlog.configure(
        processors=_processors(service, console=console, colors=in_terminal),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=True,
    )
    # Libraries log by the standard module; what they say of interest goes the same way.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forwarder()], force=True)


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module (``get_logger(__name__)``)."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


def _processors(service: str, *, console: bool, colors: bool) -> list[Processor]:
    def add_origin(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if service:
            event["service"] = service
        call = Call.current()
        if call is not None:
            event.setdefault("request_id", call.request_id)
        return event

    shared: list[Processor] = [
        structlog.processors.add_log_level,
        add_origin,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if console:
        return [*shared, structlog.dev.ConsoleRenderer(colors=colors), _encode]
    return [*shared, structlog.processors.format_exc_info, _to_json]


def _to_json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    return orjson.dumps(event, default=repr, option=orjson.OPT_APPEND_NEWLINE)


def _encode(_: WrappedLogger, __: str, line: EventDict) -> bytes:
    return f"{line}\n".encode(errors="replace")


class _StderrLogger:
    """Writes whole lines straight to the descriptor: no buffer that a crash would lose."""

    def __init__(self, *_: object) -> None:
        pass

    def info(self, line: bytes) -> None:
        while line:
            line = line[os.write(_STDERR, line) :]

    debug = warning = warn = error = critical = exception = fatal = msg = log = info


class _Forwarder(logging.Handler):
    """Takes the lines of the standard logging module."""

    def emit(self, record: logging.LogRecord) -> None:
        log = get_logger(record.name)
        log.log(
            record.levelno, "library", message=record.getMessage(), exc_info=record.exc_info or None
        )
