"""Usage that is cut into days and months."""

from __future__ import annotations

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import queries
from services.credits.errors import AmountOutOfRangeError
from tests.support.credit_service import DAY_S, Account, Clock, metered


async def test_usage_by_day_has_a_sorted_line_for_each_day_and_meter(
    alice: Account, clock: Clock
) -> None:
    for quantity in (1, 2, 3):
        await alice.debit(metered=metered("free", quantity, "HIT"))
        await alice.debit(metered=metered("free", quantity))
        clock.advance(DAY_S)
    lines = await alice.usage(period=pb.USAGE_PERIOD_DAY)
    assert [line.quantity for line in lines] == [1, 1, 2, 2, 3, 3]
    starts = [line.start_time.seconds for line in lines]
    assert starts == sorted(starts)
    assert len(set(starts)) == 3
    assert not any(start % DAY_S for start in starts)


async def test_usage_by_month_begins_on_the_first_and_sums_to_the_whole(
    bob: Account, clock: Clock
) -> None:
    for _ in range(70):
        await bob.debit(metered=metered("free", 1))
        clock.advance(DAY_S)
    months = await bob.usage(period=pb.USAGE_PERIOD_MONTH)
    assert all(line.start_time.ToDatetime().day == 1 for line in months)
    assert len(months) in {3, 4}
    (whole,) = await bob.usage()
    assert not whole.HasField("start_time")
    assert sum(line.quantity for line in months) == whole.quantity == 70


async def test_too_many_lines_are_refused_with_what_to_do(
    bob: Account, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "USAGE_LINES", 2)
    for _ in range(3):
        await bob.debit(metered=metered("free", 1))
        clock.advance(DAY_S)
    with pytest.raises(AmountOutOfRangeError, match="ask for less time"):
        await bob.usage(period=pb.USAGE_PERIOD_DAY)
    assert len(await bob.usage()) == 1
