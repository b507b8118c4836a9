"""``tollmesh import``: brings accounts, keys and credit of another system, each row once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceStub
from tollmesh.client import AsyncCreditClient

from services.auth import errors as auth_errors
from services.cli import output
from services.cli.connection import described
from services.cli.failure import FAILED, MISUSED, CommandError
from services.cli.import_rows import BadRow, Row, read
from services.cli.import_target import Target
from services.rpc.client import connect

_SHOWN = 20


class Format(StrEnum):
    """How a file is written."""

    CSV = "csv"
    JSONL = "jsonl"


@dataclass
class Report:
    """What an import found and did."""

    bad: list[BadRow] = field(default_factory=list)
    problems: list[dict[str, object]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """By what became of it and type: ``created grant``."""
    sums: Counter[str] = field(default_factory=Counter)
    """By what became of it and currency: ``created upload-byte``."""
    names: dict[str, str] = field(default_factory=dict)
    """Accounts of the file by their own ids."""

    def count(self, outcome: str, row: Row) -> None:
        """Adds a row."""
        self.counts[f"{outcome} {row.type}"] += 1
        if row.type == "grant":
            self.sums[f"{outcome} {row.currency or 'credit'}"] += row.amount

    def problem(self, outcome: str, row: Row, message: str) -> None:
        """Adds a row that was not imported."""
        self.count(outcome, row)
        self.problems.append({"line": row.line, "type": row.type, "id": row.id, "why": message})

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return {
            "counts": dict(self.counts),
            "sums": dict(self.sums),
            "problems": self.problems,
            "bad_rows": [vars(row) for row in self.bad],
        }


def import_(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="What to import.")],
    dry_run: Annotated[bool, typer.Option(help="Check and count; change nothing.")] = False,
    format: Annotated[  # noqa: A002 (the option's name)
        Format | None, typer.Option(help="csv or jsonl; by the file's name unless given.")
    ] = None,
    source: Annotated[
        str, typer.Option(help="Names the other system: rows of one source are imported once.")
    ] = "import",
    skip_bad: Annotated[bool, typer.Option(help="Import the good rows beside bad ones.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write the report here, as JSON.")] = None,
    keys_out: Annotated[
        Path | None, typer.Option(help="Write the credentials of new keys here (mode 0600).")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Rows at once.")] = 32,
) -> None:
    """Import accounts, keys and credit from a CSV or JSON Lines file."""
    form = format or (Format.CSV if file.suffix == ".csv" else Format.JSONL)
    found = _checked(file, form, keys_out)
    if not (found.bad and not skip_bad):
        work = _dry(file, form, found) if dry_run else None
        asyncio.run(work or _imported(file, form, found, source, keys_out, concurrency))
    if report is not None:
        report.write_text(json.dumps(found.as_json(), indent=2) + "\n")
    _show(found, dry_run=dry_run)
    if found.bad and not skip_bad:
        raise CommandError("nothing was imported: correct the rows, or give --skip-bad", MISUSED)
    if found.problems:
        raise CommandError(f"{len(found.problems)} rows were not imported", FAILED)


def _checked(file: Path, form: Format, keys_out: Path | None) -> Report:
    """The first pass: every row, without a service."""
    report, seen, makes_keys = Report(), set[tuple[str, str]](), False
    for row in read(file, form):
        if isinstance(row, BadRow):
            report.bad.append(row)
            continue
        if (row.type, row.id) in seen:
            message = f"another {row.type} of this file has this id: give each its own"
            report.bad.append(BadRow(row.line, "id", row.id, message))
        seen.add((row.type, row.id))
        if row.type == "account":
            report.names[row.id] = row.name
        makes_keys = makes_keys or (row.type == "api_key" and not row.secret)
    if makes_keys and keys_out is None:
        message = (
            "rows of type api_key without a secret make new keys: say where to with --keys-out"
        )
        raise CommandError(message, MISUSED)
    return report


def _good(file: Path, form: Format, report: Report) -> Iterator[Row]:
    """The second pass: rows to import; expired ones are counted and left out."""
    now = datetime.now(UTC)
    bad = {row.line for row in report.bad}
    for row in read(file, form):
        if isinstance(row, BadRow) or row.line in bad:
            continue
        if row.expires is not None and row.expires <= now:
            report.count("expired", row)
        else:
            yield row


async def _dry(file: Path, form: Format, report: Report) -> None:
    async with connect(described("auth_target"), errors=auth_errors.ERRORS) as channel:
        target = Target(AccountServiceStub(channel), None, "", report.names, None)
        for row in _good(file, form, report):
            missing = await target.missing_account(row.account)
            if missing:
                report.problem("failed", row, missing)
            else:
                report.count("would create", row)


async def _imported(
    file: Path, form: Format, report: Report, source: str, keys_out: Path | None, concurrency: int
) -> None:
    async with (
        connect(described("auth_target"), errors=auth_errors.ERRORS) as channel,
        AsyncCreditClient(described("credits_target"), deadline_s=60) as credits,
    ):
        accounts = AccountServiceStub(channel)
        target = Target(accounts, credits, source, report.names, keys_out)
        with output.progress_of_rows() as advance:
            await _each(
                _good(file, form, report),
                lambda row: target.bring(row, report.count, report.problem, advance),
                concurrency,
            )


async def _each(
    rows: Iterator[Row], work: Callable[[Row], Coroutine[object, object, None]], concurrency: int
) -> None:
    """So many at once; no more of the file is in memory than that."""

    async def worker() -> None:
        for row in rows:
            await work(row)

    async with asyncio.TaskGroup() as workers:
        for _ in range(concurrency):
            workers.create_task(worker())


def _show(report: Report, *, dry_run: bool) -> None:
    title = "Would import" if dry_run else "Import"
    output.table(title, ("rows", "how many"), sorted(report.counts.items()))
    if report.sums:
        output.table("Credit", ("currency", "amount"), sorted(report.sums.items()))
    if report.bad:
        rows = [(row.line, row.field, row.value, row.message) for row in report.bad[:_SHOWN]]
        output.table(f"Bad rows ({len(report.bad)})", ("line", "field", "value", "what"), rows)
    if report.problems:
        lines = [tuple(problem.values()) for problem in report.problems[:_SHOWN]]
        output.table("Not imported", ("line", "type", "id", "why"), lines)
