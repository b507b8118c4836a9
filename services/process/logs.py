"""Logs: one JSON object a line on standard error, or readable lines in a terminal.

Event names are constants, values are keys: ``log.info("index_advanced", network=name, block=n)``.
Never a secret or a whole API key. Lines written while a call is served carry its request id.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "json", "console"]

_STDERR = 2
_BATCH_S = 0.1
_BATCH_BYTES = 64 * 1024
_JSON = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_tell_of_error: Processor = structlog.processors.format_exc_info
_chain: list[Processor] = []
"""What makes a line of an event, last of all bytes; empty until ``configure``."""
_call_names: list[Callable[[], str | None]] = [lambda: None]


def configure(
    level: LogLevel = "info",
    format: LogFormat = "auto",  # noqa: A002 (the setting's name)
    *,
    service: str = "",
) -> None:
    """Decides, once for the process, what is logged and how.

    Args:
        level: the lowest level that is written.
        format: ``auto`` is ``console`` in a terminal and ``json`` elsewhere.
        service: the process's name, on every line.
    """
    in_terminal = sys.stderr.isatty()
    console = format == "console" or (format == "auto" and in_terminal)
    _chain[:] = _processors(service, console=console, colors=in_terminal)
    structlog.configure(
        processors=_chain,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_StderrLogger,
        cache_logger_on_first_use=True,
    )
    # Libraries log by the standard module; what they say of interest goes the same way.
    logging.basicConfig(level=logging.WARNING, handlers=[_Forwarder()], force=True)


def get_logger(name: str) -> FilteringBoundLogger:
    """The logger of a module (``get_logger(__name__)``)."""
    return cast("FilteringBoundLogger", structlog.get_logger(module=name))


def name_calls_by(request_id: Callable[[], str | None]) -> None:
    """From now on every line carries the id of the call that the running task serves."""
    _call_names[:] = [request_id]


class BatchedLines:
    """Lines of one event at level info that are too many to write one by one.

    They are written together, at most 0.1 s late. A killed process loses those of its last 0.1 s.
    Made after ``configure``, used in one event loop, flushed by its owner at the end.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._wanted = bool(_chain) and get_logger("").is_enabled_for(logging.INFO)
        # One buffer: many small objects that wait would each have a page of memory of their own.
        self._lines = bytearray()

    def add(self, fields: EventDict, ago_s: float = 0.0) -> None:
        """Takes a line of something that was so long ago; ``fields`` is the caller's no longer."""
        if not self._wanted:
            return
        fields["event"] = self._event
        fields["timestamp"] = datetime.now(UTC) - timedelta(seconds=ago_s)
        line: Any = fields  # each step takes what the one before it made
        for processor in _chain:
            if processor is not _tell_of_error:  # these lines never do
                line = processor(None, "info", line)
        before = len(self._lines)
        self._lines += line
        if not before:
            asyncio.get_running_loop().call_later(_BATCH_S, self.flush)
        if before < _BATCH_BYTES <= len(self._lines):
            # Not here: that nobody reads the log is no fault of who adds a line.
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Writes what waits."""
        lines, self._lines = self._lines, bytearray()
        _write(lines)


def _processors(service: str, *, console: bool, colors: bool) -> list[Processor]:
    def add_origin(_: WrappedLogger, level: str, event: EventDict) -> EventDict:
        event["level"] = level
        if service:
            event["service"] = service
        if "timestamp" not in event:
            event["timestamp"] = datetime.now(UTC)
            request_id = _call_names[-1]()
            if request_id is not None:
                event.setdefault("request_id", request_id)
        return event

    if console:
        # The default shows the variables of every frame: API keys, requests, secrets.
        plain = structlog.dev.plain_traceback
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain)
        return [add_origin, _short_time, renderer, _to_text]
    return [add_origin, _tell_of_error, _to_json]


def _short_time(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    event["timestamp"] = event["timestamp"].strftime("%H:%M:%S.%f")[:-3]
    return event


def _to_json(_: WrappedLogger, __: str, event: EventDict) -> bytes:
    try:
        return orjson.dumps(event, default=repr, option=_JSON)
    except TypeError:
        pass
    try:
        return orjson.dumps(event, default=repr, option=_JSON | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # lone surrogates, integers over 64 bits: no value may cost us the line
        return json.dumps(event, default=str).encode() + b"\n"


def _to_text(_: WrappedLogger, __: str, line: EventDict) -> bytes:
    return f"{line}\n".encode(errors="replace")


def _write(data: bytes | bytearray) -> None:
    # Straight to the descriptor: no buffer that a crash would lose, no lock between threads.
    # A log whose disk is full, or that nobody reads any more, must not stop what it is about.
    with suppress(OSError):
        while data:
            data = data[os.write(_STDERR, data) :]


class _StderrLogger:
    """What structlog hands rendered lines to."""

    def __init__(self, *_: object) -> None:
        pass

    def info(self, line: bytes) -> None:
        _write(line)

    debug = warning = warn = error = critical = exception = fatal = msg = log = info


class _Forwarder(logging.Handler):
    """Takes the lines of the standard logging module."""

    def emit(self, record: logging.LogRecord) -> None:
        log = get_logger(record.name)
        message, exc_info = record.getMessage(), record.exc_info or None
        log.log(record.levelno, "library", message=message, exc_info=exc_info)
