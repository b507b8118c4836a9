"""``tollmesh export``: the ledger as a file."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from tollmesh.credits.v1 import ledger_pb2 as pb

from services.cli import output
from services.cli.connection import with_ledger
from services.cli.options import moment
from services.rpc.errors import ServiceError

if TYPE_CHECKING:
    from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceAsyncStub

TRIES = 8
"""How often in a row a stream may break without a part."""
LONGEST_REST_S = 5.0


class Format(StrEnum):
    """How entries are written."""

    CSV = "csv"
    JSONL = "jsonl"


_FORMATS = {Format.CSV: pb.EXPORT_FORMAT_CSV, Format.JSONL: pb.EXPORT_FORMAT_JSON_LINES}


def export(
    account: Annotated[str | None, typer.Option(help="One account; all unless given.")] = None,
    format: Annotated[  # noqa: A002 (the option's name)
        Format | None, typer.Option(help="csv or jsonl; by the file's name unless given.")
    ] = None,
    start: Annotated[
        str | None, typer.Option("--from", help="Entries from then on: 2027-01-31, in UTC.")
    ] = None,
    end: Annotated[
        str | None, typer.Option("--to", help="Entries before then: 2027-02-01, in UTC.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; stdout unless given.")
    ] = None,
) -> None:
    """Write the ledger, or a part of it, into a file."""
    by_name = Format.CSV if out is not None and out.suffix == ".csv" else Format.JSONL
    request = pb.ExportEntriesRequest(
        account_id=account or "",
        format=_FORMATS[format or by_name],
        start_time=moment(start) if start else None,
        end_time=moment(end) if end else None,
    )
    if out is None or str(out) == "-":
        with_ledger(lambda ledger: exported(ledger, request, sys.stdout.buffer.write))
        sys.stdout.buffer.flush()
        return
    partial = out.with_name(f"{out.name}.partial")
    with partial.open("wb") as file:
        count = with_ledger(lambda ledger: exported(ledger, request, file.write))
    partial.replace(out)
    output.console.print(f"{count:,} entries in {out}", markup=False, highlight=False)


async def exported(
    ledger: LedgerServiceAsyncStub,
    request: pb.ExportEntriesRequest,
    write: Callable[[bytes], object],
    *,
    rest_s: float = 0.5,
) -> int:
    """Writes every part once and counts the entries; a stream that breaks is taken up again.

    Raises the service's error when it is none that passes, or after ``TRIES`` breaks in a row;
    ``rest_s`` is the first rest between them, in seconds, and doubles.
    """
    at = pb.ExportEntriesRequest()
    at.CopyFrom(request)
    count = breaks = 0
    while True:
        try:
            async for part in ledger.ExportEntries(at):
                write(part.data)
                count += part.entries
                at.cursor, breaks = part.cursor, 0
                if not part.cursor:
                    return count  # nothing to go on from: there are no entries
        except ServiceError as error:
            breaks += 1
            if error.code.name != "UNAVAILABLE" or breaks == TRIES:
                raise
            await asyncio.sleep(min(rest_s * 2 ** (breaks - 1), LONGEST_REST_S))
        else:
            return count
