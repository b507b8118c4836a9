"""Figures as ratios: what was measured in each round, of what, and what was aimed at."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from services.cli.output import table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. Its measure is the median of the rounds."""

    name: str
    """What was measured: ``64 KiB hit, CPU``."""
    of: str
    """What it is a ratio of (``nginx static``), or its unit (``ms``)."""
    rounds: Sequence[float]
    """One value a round, compared within the round."""
    at_most: float | None = None
    at_least: float | None = None
    note: str = ""
    """What else is worth saying in a word: absolute figures, say."""

    @property
    def measured(self) -> float:
        """The median of the rounds."""
        return statistics.median(self.rounds)

    @property
    def target(self) -> str:
        """As people read it; empty for a figure that only informs."""
        if self.at_most is not None:
            return f"<= {self.at_most:g}"
        return "" if self.at_least is None else f">= {self.at_least:g}"

    @property
    def verdict(self) -> str:
        """Whether the target was met; empty without one."""
        if self.at_most is not None:
            return "yes" if self.measured <= self.at_most else "NO"
        if self.at_least is not None:
            return "yes" if self.measured >= self.at_least else "NO"
        return ""


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Round by round, ours over theirs."""
    return [one / other for one, other in zip(ours, theirs, strict=True)]


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Prints a table of rows."""
    table(
        title,
        ("row", "measured", "of", "target", "met", "rounds", "note"),
        [
            (
                row.name,
                f"{row.measured:.2f}",
                row.of,
                row.target,
                row.verdict,
                " ".join(f"{value:.2f}" for value in row.rounds),
                row.note,
            )
            for row in rows
        ],
    )
