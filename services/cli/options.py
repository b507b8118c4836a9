"""Options that several commands share, and the reading of their values."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from google.protobuf.timestamp_pb2 import Timestamp

from services.cli.failure import MISUSED, CommandError

Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
RequestId = Annotated[
    str | None,
    typer.Option(help="Idempotency key: repeat a command with the same one and it acts once."),
]
Expires = Annotated[
    str | None,
    typer.Option(
        help="When it expires: 30d, 12h, 90m, or a time such as 2027-01-31T12:00:00Z. "
        "With --request-id give a time: a span from now is another request each time."
    ),
]
Limit = Annotated[int, typer.Option(min=1, help="Print at most this many.")]

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def moment(text: str, *, now: datetime | None = None) -> Timestamp:
    """A time of day, or a span from now, as a timestamp. Raises CommandError."""
    stamp = Timestamp()
    if span := re.fullmatch(r"(\d+)([dhms])", text):
        delta = timedelta(**{_UNITS[span[2]]: int(span[1])})
        stamp.FromDatetime((now or datetime.now(UTC)) + delta)
        return stamp
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        message = f"{text!r} is no time: write 30d, 12h, 90m or 2027-01-31T12:00:00Z"
        raise CommandError(message, MISUSED) from None
    stamp.FromDatetime(when if when.tzinfo else when.replace(tzinfo=UTC))
    return stamp


def shown(stamp: Timestamp, *, present: bool = True, absent: str = "never") -> str:
    """A timestamp for people, in UTC."""
    return f"{stamp.ToDatetime():%Y-%m-%d %H:%M:%S}Z" if present else absent
