"""docs/errors.md against the contract and the code: a reason, a row, a class."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tollmesh.errors.v1 import errors_pb2 as reasons

from services.auth import errors as auth
from services.chain import errors as chain
from services.credits import errors as credits_
from services.edge import errors as edge
from services.edge.http.problems import STATUS
from services.rpc import errors as common
from services.rpc.errors import ServiceError

ROOT = Path(__file__).parents[2]
PREFIX = "ERROR_REASON_"
SECTIONS: dict[str, tuple[type[ServiceError], ...]] = {
    "Any service": common.COMMON,
    "Auth": auth.ERRORS,
    "Credits": credits_.ERRORS,
    "Chain and edge": chain.ERRORS,
    "Edge": edge.ERRORS,
}
CLASSES = {
    error.reason_name(): error
    for errors in SECTIONS.values()
    for error in errors
    if "reason" in vars(error) or error is common.InternalError  # it has the root's
}
ROW = re.compile(
    r"^\| `(?P<reason>[A-Z_]+)` \| (?P<code>[A-Z_]+) \| (?P<http>\d{3}) "
    r"\| (?P<meaning>[^|]+) \| (?P<repeat>[^|]+) \| (?P<metadata>[^|]*)\|$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Row:
    """A line of the page."""

    section: str
    code: str
    http: int
    repeat: str
    metadata: frozenset[str]


def rows() -> dict[str, Row]:
    page = (ROOT / "docs/errors.md").read_text()
    found: dict[str, Row] = {}
    for section in page.split("\n## ")[1:]:
        for row in ROW.finditer(section):
            assert row["reason"] not in found, f"{row['reason']} stands twice"
            found[row["reason"]] = Row(
                section.partition("\n")[0],
                row["code"],
                int(row["http"]),
                row["repeat"],
                frozenset(re.findall("`([a-z_]+)`", row["metadata"])),
            )
    return found


def contract() -> dict[str, str]:
    """What the proto says of each reason: the comment above it."""
    proto = (ROOT / "protos/tollmesh/errors/v1/errors.proto").read_text()
    commented = re.findall(r"((?:  // .*\n)+)  ERROR_REASON_([A-Z_]+) = ", proto)
    return {
        reason: " ".join(line.strip().removeprefix("// ") for line in comment.splitlines())
        for comment, reason in commented
    }


ROWS = rows()
CONTRACT = contract()
REASONS = [name.removeprefix(PREFIX) for name, number in reasons.ErrorReason.items() if number]


def test_the_page_has_the_reasons_of_the_contract_in_its_order() -> None:
    assert list(ROWS) == REASONS
    assert list(CONTRACT) == REASONS


def test_each_reason_is_declared_by_exactly_one_class() -> None:
    declaration = re.compile(r"^    reason\b.*= reasons\.ERROR_REASON_(\w+)$", re.MULTILINE)
    declared = [
        name
        for path in (ROOT / "services").rglob("*.py")
        for name in declaration.findall(path.read_text())
    ]
    assert sorted(declared) == sorted(REASONS)
    assert sorted(CLASSES) == sorted(REASONS)


@pytest.mark.parametrize("reason", REASONS)
def test_a_row_says_what_the_class_and_the_contract_say(reason: str) -> None:
    row, error, said = ROWS[reason], CLASSES[reason], CONTRACT[reason]
    assert error in SECTIONS[row.section]
    assert row.code == error.code.name
    assert re.search(rf"\b{row.code}\b", said.partition(":")[0] + said.partition(".")[0])
    assert row.http == STATUS[error.reason]
    metadata = re.search(r"Metadata: ([^.]*)\.", said)
    without_asides = re.sub(r"\([^)]*\)|, to .*", "", metadata[1]) if metadata else ""
    assert row.metadata == set(re.findall("[a-z_]+", without_asides))


@pytest.mark.parametrize("reason", REASONS)
def test_the_rule_on_repeating_fits_the_code(reason: str) -> None:
    row, error = ROWS[reason], CLASSES[reason]
    rule, _, retry_info = row.repeat.partition(", ")
    assert rule in {"no", "later", "same id"}
    assert retry_info in {"", "`RetryInfo`"}
    assert (error.retry_after_s is not None) == bool(retry_info)
    assert bool(retry_info) == ("RetryInfo" in CONTRACT[reason])
    temporary = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"}
    assert rule != "no" if row.code in temporary else rule != "same id"


def test_every_reason_has_an_http_status() -> None:
    assert {reasons.ErrorReason.Name(r).removeprefix(PREFIX) for r in STATUS} == set(REASONS)
