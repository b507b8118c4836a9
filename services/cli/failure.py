"""Errors of the command line: one clear line on stderr, and an exit status that means something.

| status | meaning |
|---|---|
| 0 | done |
| 1 | failed for another reason; a fault of the program itself shows its traceback |
| 2 | the command was misused, or a value in it is refused |
| 3 | the key is missing, wrong, expired or revoked, or may not do this |
| 4 | there is no such thing, or not yet |
| 5 | not enough credit |
| 6 | a service cannot be reached or is overloaded; try again |
"""

from __future__ import annotations

import sys
import traceback

import click

from services.rpc.errors import ServiceError

FAILED, MISUSED, REFUSED, ABSENT, NO_CREDIT, UNAVAILABLE = range(1, 7)

_BY_CODE = {
    "INVALID_ARGUMENT": MISUSED,
    "OUT_OF_RANGE": MISUSED,
    "ALREADY_EXISTS": MISUSED,
    "UNAUTHENTICATED": REFUSED,
    "PERMISSION_DENIED": REFUSED,
    "NOT_FOUND": ABSENT,
    "UNAVAILABLE": UNAVAILABLE,
    "RESOURCE_EXHAUSTED": UNAVAILABLE,
    "DEADLINE_EXCEEDED": UNAVAILABLE,
}
_BY_HTTP = {400: 2, 401: 3, 402: 5, 403: 3, 404: 4, 416: 2, 429: 6, 503: 6, 504: 6}


class CommandError(Exception):
    """A command cannot go on; the message says what to do."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def of_http(status: int, problem: dict[str, object]) -> CommandError:
    """The error that an edge answered with (RFC 9457 problem details)."""
    reason = problem.get("reason") or f"HTTP {status}"
    detail = problem.get("detail") or problem.get("title") or "no explanation was given"
    return CommandError(f"{detail} ({reason})", _BY_HTTP.get(status, FAILED))


def exit_status(error: BaseException) -> int:
    """Says on stderr what went wrong; the exit status for it."""
    if isinstance(error, click.ClickException):
        error.show()
        return error.exit_code
    if isinstance(error, ServiceError):
        _say(f"{error} ({error.reason_name()})")
        if error.reason_name() == "INSUFFICIENT_CREDIT":
            return NO_CREDIT
        return _BY_CODE.get(error.code.name, FAILED)
    if isinstance(error, CommandError):
        _say(str(error))
        return error.status
    if isinstance(error, OSError):
        _say(str(error))
        return FAILED
    traceback.print_exception(error)
    return FAILED


def _say(message: str) -> None:
    sys.stderr.write(f"tollmesh: {message}\n")
