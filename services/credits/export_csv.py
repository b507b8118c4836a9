"""Entries as CSV (RFC 4180): commas, lines that end in CRLF, quotes where a cell needs them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from io import StringIO

from tollmesh.credits.v1 import credits_pb2 as pb

COLUMNS = (
    "entry_id",
    "account_id",
    "currency",
    "kind",
    "amount",
    "available_after",
    "held_after",
    "request_id",
    "hold_id",
    "grant_id",
    "meter",
    "quantity",
    "cache_result",
    "resource",
    "create_time",
    "shortfall",
    "free_quantity",
    "refunded_entry_id",
    "count",
)
"""Named as the fields of ``Entry``; new ones come behind these."""
_RUN_BY_SPREADSHEETS = ("=", "+", "-", "@", "\t", "\r", "\n")


def header() -> bytes:
    """The first line."""
    return _lines([COLUMNS])


def csv_line(entry: pb.Entry) -> bytes:
    """An entry as a row; what was not metered has three empty cells."""
    return _lines([_cells(entry)])


def as_text(free_text: str) -> str:
    """A caller's text as a cell that no spreadsheet takes for a formula.

    An apostrophe comes before what begins as a formula does, or with an apostrophe: without its
    first apostrophe a cell is always the caller's text.
    """
    return f"'{free_text}" if free_text.startswith(("'", *_RUN_BY_SPREADSHEETS)) else free_text


def _cells(entry: pb.Entry) -> tuple[str | int, ...]:
    metered: tuple[str | int, ...] = ("", "", "")
    if entry.HasField("metered"):
        result = pb.CacheResult.Name(entry.metered.cache_result)
        metered = (entry.metered.meter, entry.metered.quantity, result)
    return (
        entry.entry_id,
        entry.account_id,
        entry.currency,
        pb.EntryKind.Name(entry.kind),
        entry.amount,
        entry.available_after,
        entry.held_after,
        entry.request_id,
        entry.hold_id,
        entry.grant_id,
        *metered,
        as_text(entry.resource),
        entry.create_time.ToJsonString(),
        entry.shortfall,
        entry.free_quantity,
        entry.refunded_entry_id,
        entry.count,
    )


def _lines(rows: Iterable[Iterable[str | int]]) -> bytes:
    text = StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
