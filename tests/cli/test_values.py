"""What the command line makes of values, errors and files."""

from __future__ import annotations

from datetime import UTC, datetime

import click
import pytest

from services.cli import failure
from services.cli.failure import CommandError, exit_status, of_http
from services.cli.mesh.demo import price
from services.cli.options import moment
from services.credits.errors import InsufficientCreditError
from services.rpc.errors import DependencyUnavailableError, InternalError, InvalidArgumentError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("30d", "2026-01-31T00:00:00Z"),
        ("12h", "2026-01-01T12:00:00Z"),
        ("90m", "2026-01-01T01:30:00Z"),
        ("2027-01-31T12:00:00Z", "2027-01-31T12:00:00Z"),
        ("2027-01-31T12:00:00+02:00", "2027-01-31T10:00:00Z"),
        ("2027-01-31", "2027-01-31T00:00:00Z"),
    ],
)
def test_a_time_is_a_span_from_now_or_a_date(text: str, wanted: str) -> None:
    assert moment(text, now=NOW).ToJsonString() == wanted


def test_a_time_that_is_none_says_how_to_write_one() -> None:
    with pytest.raises(CommandError, match="30d"):
        moment("tomorrow")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InsufficientCreditError(), failure.NO_CREDIT),
        (InvalidArgumentError("bad"), failure.MISUSED),
        (DependencyUnavailableError(), failure.UNAVAILABLE),
        (InternalError(), failure.FAILED),
        (CommandError("no", failure.ABSENT), failure.ABSENT),
        (click.UsageError("no such option"), failure.MISUSED),
        (FileNotFoundError("gone"), failure.FAILED),
        (of_http(402, {"reason": "INSUFFICIENT_CREDIT"}), failure.NO_CREDIT),
        (of_http(404, {}), failure.ABSENT),
        (of_http(503, {}), failure.UNAVAILABLE),
    ],
)
def test_an_exit_status_says_what_went_wrong(error: Exception, status: int) -> None:
    assert exit_status(error) == status


def test_an_error_is_one_line_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    exit_status(InsufficientCreditError())
    printed = capsys.readouterr().err
    assert printed.startswith("tollmesh: ")
    assert printed.endswith("(INSUFFICIENT_CREDIT)\n")
    assert printed.count("\n") == 1


def test_an_unforeseen_error_shows_where_it_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(ZeroDivisionError("oops")) == failure.FAILED
    assert "ZeroDivisionError: oops" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("quantity", "amount"), [(0, 0), (1, 1), (1024, 2), (1025, 3), (1536, 3), (1537, 4)]
)
def test_the_demos_own_arithmetic_rounds_up(quantity: int, amount: int) -> None:
    assert price("download", "miss", quantity) == amount
