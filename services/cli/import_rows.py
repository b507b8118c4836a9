"""Rows of an import file: what they hold, read one at a time and checked without any service.

JSON Lines, an object a line; or CSV (RFC 4180) with a header. ``type`` is account, api_key or
grant; ``id`` is the row's own id in the source, unique for its type.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

SCOPES = ("download", "upload", "pin", "read", "admin")
_MAX_AMOUNT = (1 << 63) - 1
_RULES = {
    "id": (r"[!-~]{1,200}", "1 to 200 printable characters without spaces"),
    "account": (r"[!-~]{1,200}", "an account row's id, or acc_... of an account that exists"),
    "name": (r".{0,128}", "at most 128 characters"),
    "currency": (r"[a-z][a-z0-9-]{0,31}|", "such as upload-byte, or empty for credit"),
    "secret": (r"(?!tm_)[!-~]{16,256}|", "16 to 256 printable characters, not beginning with tm_"),
    "resource": (r".{0,256}", "at most 256 characters"),
}
FIELDS = {
    "account": ("id", "name"),
    "api_key": ("id", "account", "name", "scopes", "expires", "secret"),
    "grant": ("id", "account", "currency", "amount", "expires", "priority", "resource"),
}


@dataclass(frozen=True)
class Row:
    """One row that is right. Its ``repr`` may show a secret: never log it."""

    line: int
    type: str
    id: str
    account: str = ""
    name: str = ""
    scopes: tuple[str, ...] = ()
    secret: str = ""
    currency: str = ""
    amount: int = 0
    priority: int = 0
    resource: str = ""
    expires: datetime | None = None


@dataclass(frozen=True)
class BadRow:
    """What is wrong with a row, and what to do."""

    line: int
    field: str
    value: str
    message: str


def read(path: Path, form: str) -> Iterator[Row | BadRow]:
    """The rows of a file, one after the other. Raises OSError."""
    with path.open(encoding="utf-8", newline="") as file:
        for line, raw in _csv(file) if form == "csv" else _json_lines(file):
            yield raw if isinstance(raw, BadRow) else _row(line, raw)


class _WrongFieldError(Exception):
    def __init__(self, field: str, value: object, message: str) -> None:
        super().__init__(message)
        shown = "(hidden)" if field == "secret" else str(value)[:80]
        self.field, self.value, self.message = field, shown, message


def _csv(file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | BadRow]]:
    reader = csv.DictReader(file)
    for raw in reader:
        yield reader.line_num, {str(name): value or "" for name, value in raw.items() if name}


def _json_lines(file: TextIO) -> Iterator[tuple[int, Mapping[str, object] | BadRow]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            raw = json.loads(text)
        except ValueError as error:
            yield line, BadRow(line, "", "", f"not JSON ({error}): write one object a line")
            continue
        if isinstance(raw, dict):
            yield line, raw
        else:
            yield line, BadRow(line, "", "", "not an object: write one object a line")


def _row(line: int, raw: Mapping[str, object]) -> Row | BadRow:
    try:
        kind = _kind(raw)
        values = {field: raw.get(field) for field in FIELDS[kind]}
        texts = {field: _text(field, values[field]) for field in values if field in _RULES}
        return Row(
            line=line,
            type=kind,
            **texts,
            scopes=_scopes(values["scopes"]) if kind == "api_key" else (),
            amount=_whole("amount", values["amount"], 1, _MAX_AMOUNT) if kind == "grant" else 0,
            priority=_whole("priority", values.get("priority") or 0, -(1 << 31), (1 << 31) - 1),
            expires=_moment(values.get("expires")),
        )
    except _WrongFieldError as wrong:
        return BadRow(line, wrong.field, wrong.value, wrong.message)


def _kind(raw: Mapping[str, object]) -> str:
    kind = str(raw.get("type", ""))
    if kind not in FIELDS:
        raise _WrongFieldError("type", kind, f"must be one of {', '.join(FIELDS)}")
    for field, value in raw.items():
        if field not in FIELDS[kind] and field != "type" and value not in ("", None):
            rule = f"a row of type {kind} has no such field: remove it"
            raise _WrongFieldError(field, value, rule)
    return kind


def _text(field: str, value: object) -> str:
    text = "" if value is None else str(value)
    pattern, rule = _RULES[field]
    if re.fullmatch(pattern, text, re.DOTALL) is None:
        raise _WrongFieldError(field, text, f"must be {rule}")
    return text


def _scopes(value: object) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else re.split(r"[ ,;|]+", str(value or ""))
    scopes = tuple(dict.fromkeys(str(text) for text in texts if text)) or SCOPES[:4]
    for scope in scopes:
        if scope not in SCOPES:
            raise _WrongFieldError("scopes", scope, f"choose from {', '.join(SCOPES)}")
    return scopes


def _whole(field: str, value: object, least: int, most: int) -> int:
    text = str(value)
    if isinstance(value, bool) or re.fullmatch(r"-?\d{1,19}", text) is None:
        raise _WrongFieldError(field, value, "must be a whole number")
    if not least <= int(text) <= most:
        raise _WrongFieldError(field, value, f"must be {least} to {most}")
    return int(text)


def _moment(value: object) -> datetime | None:
    if value in ("", None):
        return None
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        raise _WrongFieldError(
            "expires", value, "must be a time such as 2027-01-31T12:00:00Z"
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
