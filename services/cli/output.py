"""What commands print: tables for people, JSON for machines. Progress goes to stderr."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

WIDE = 140
console = Console(width=None if sys.stdout.isatty() else WIDE)


def as_json(value: Message | Mapping[str, object] | Sequence[object]) -> None:
    """Prints a message or plain value as one JSON document; field names are those of the protos."""
    if isinstance(value, Message):
        value = MessageToDict(
            value, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
        )
    json.dump(value, sys.stdout, indent=2)
    sys.stdout.write("\n")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints rows for people; whole numbers are grouped and stand right."""
    grid = Table(title=title, title_justify="left", header_style="bold")
    kept = [list(row) for row in rows]
    for index, column in enumerate(columns):
        numeric = bool(kept) and all(isinstance(row[index], int) for row in kept)
        grid.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in kept:
        grid.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row))
    if not kept:
        grid.caption = "none"
    console.print(grid)


def progress(*, quiet: bool) -> Progress:
    """A progress bar of bytes on stderr; silent when quiet or when stderr is not a terminal."""
    stderr = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=stderr,
        disable=quiet or not stderr.is_terminal,
        transient=True,
    )


@contextmanager
def progress_of_rows() -> Iterator[Callable[[], None]]:
    """Counts rows on stderr while they are worked off; silent when it is not a terminal."""
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.completed:,.0f} rows"),)
    with Progress(
        *columns, console=stderr, disable=not stderr.is_terminal, transient=True
    ) as shown:
        task = shown.add_task("", total=None)
        yield lambda: shown.advance(task)


@contextmanager
def progress_of_text() -> Iterator[Callable[[str], None]]:
    """Shows the latest of some lines on stderr; silent when it is not a terminal."""
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"),)
    with Progress(
        *columns, console=stderr, disable=not stderr.is_terminal, transient=True
    ) as shown:
        task = shown.add_task("", total=None)
        yield lambda line: shown.update(task, description=line)


def short_cids(text: str) -> str:
    """A text whose CIDs are cut to their beginnings: enough for people, who see the table."""
    return re.sub(r"(bafkr6i[a-z2-7]{7})[a-z2-7]{45}", r"\1...", text)


def short_name(enum_name: str, prefix: str) -> str:
    """``ENTRY_KIND_DEBIT`` as ``debit``."""
    return enum_name.removeprefix(prefix).lower().replace("_", " ")
