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
    "services/edge/credit/lease_calls.py": "until when a call is repeated, as the ledger has it",
    "services/edge/credit/lease_journal.py": "when a settlement was frozen, for the next process",
    "services/edge/credit/lease_keeper.py": "how long ago that is",
    "services/edge/cache/pin_records.py": "how old the record of a request is",
    "services/edge/pins/pins.py": "when a period of a pin ends",
    "services/edge/pins/pin_keeper.py": "whether it has",
    "services/edge/pins/pin_periods.py": "since when the ledger is searched for it",
    "services/edge/bans.py": "when a ban was made, for people",
    "services/edge/door/late.py": "until when a debit is repeated, as the ledger has it",
    "services/edge/door/register.py": "when a ticket ends, for the next process",
    "services/edge/door/log_file.py": "when a file was looked at, against the times of files",
    "services/edge/http/exchange.py": "Date",
    "services/edge/http/hits.py": "Date",
    "services/edge/http/refusals.py": "Date",
    "services/edge/origins/answers.py": "ages by Date and Expires (RFC 9111)",
    "services/edge/origins/fetches.py": "ages by Date and Expires (RFC 9111)",
    "services/edge/origins/passing.py": "ages by Date and Expires (RFC 9111)",
    "services/edge/origins/proxy.py": "ages by Date and Expires (RFC 9111)",
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
