"""The wall clock, which may jump, is read in few places; all else goes by the monotonic clock."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
WALL_CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "date.today"}
READERS = {
    "services/process/clock.py": "what the services that keep records are handed",
    "services/process/logs.py": "the time of a line",
    "services/edge/credit/holds.py": "when a hold in the journal ends, for the next process",
    "services/edge/credit/ledger.py": "how far that is away",
    "services/edge/cache/catalog.py": "how old the record of a pin is",
}


def test_the_wall_clock_is_read_in_these_places_only() -> None:
    readers = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "services").rglob("*.py")
        if "cli" not in path.parts and _reads_wall_clock(path)
    }
    assert readers == set(READERS)


def _reads_wall_clock(path: Path) -> bool:
    named = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    return bool(named & WALL_CLOCKS)
