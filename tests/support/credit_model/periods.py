"""When the periods of a recurring grant end, to the model."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import NEVER

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def period_end(begin_us: int, period: pb.RefillPeriod.ValueType, refills: int) -> int:
    """When the period ends that comes after so many refills, of a grant that began then."""
    begin = _EPOCH + timedelta(microseconds=begin_us)
    periods = refills + 1
    try:
        if period == pb.REFILL_PERIOD_DAY:
            end = begin + timedelta(days=periods)
        elif period == pb.REFILL_PERIOD_WEEK:
            end = begin + timedelta(weeks=periods)
        elif period == pb.REFILL_PERIOD_MONTH:
            end = _months_later(begin, periods)
        else:
            end = _months_later(begin, 12 * periods)
    except (OverflowError, ValueError):
        return NEVER  # the calendar ends with the year 9999
    return (end - _EPOCH) // timedelta(microseconds=1)


def _months_later(begin: datetime, months: int) -> datetime:
    """The same day of a later month, or its last day."""
    month = begin.year * 12 + begin.month - 1 + months
    year, month = month // 12, month % 12 + 1
    last = calendar.monthrange(year, month)[1]
    return begin.replace(year=year, month=month, day=min(begin.day, last))
