"""When the periods of a recurring grant begin: calendar arithmetic in UTC, from its first moment.

Each boundary is reckoned from the anchor and not from the one before, so that what began on the
31st of January goes on with the 28th of February and the 31st of March.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, datetime, timedelta

from services.credits.records import NEVER_US, RefillPeriod

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DAYS = {RefillPeriod.DAY: 1, RefillPeriod.WEEK: 7}
_MONTHS = {RefillPeriod.MONTH: 1, RefillPeriod.YEAR: 12}


def boundary_us(anchor_us: int, period: RefillPeriod, count: int) -> int:
    """The moment ``count`` periods after the anchor; NEVER_US behind the year 9999.

    The same time of day (UTC), so many days or weeks later; or the same day of a later month or
    year, or its last day where that month is shorter.
    """
    anchor = _EPOCH + timedelta(microseconds=anchor_us)
    try:
        if period in _DAYS:
            moment = anchor + timedelta(days=_DAYS[period] * count)
        else:
            moment = _months_later(anchor, _MONTHS[period] * count)
    except (OverflowError, ValueError):
        return NEVER_US
    return (moment - _EPOCH) // _MICROSECOND


def _months_later(anchor: datetime, months: int) -> datetime:
    years, month = divmod(anchor.month - 1 + months, 12)
    year, month = anchor.year + years, month + 1
    last_day = monthrange(year, month)[1]
    return anchor.replace(year=year, month=month, day=min(anchor.day, last_day))
