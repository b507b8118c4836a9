"""What a state machine asks of the credit service: small domains, so that things meet often."""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2

from tests.support.credit_service import DAY_S, live, metered

MAX = 2**63 - 1
ACCOUNTS = ("ann", "ben")
CURRENCIES = ("credit", "stamp")
STARTS = (1_801_382_400, 1_835_395_199, 1_830_297_540)
"""31 January 2027 at 08:00, 28 February 2028 at 23:59:59, 31 December 2027 at 23:59."""
LONGEST = {"download": 20_000, "scan": 1500, "probe": 40, "parcel": 12, "none": 3, "free": 9}
"""How much of a meter is asked for at most; "none" has no price."""

accounts = st.sampled_from(ACCOUNTS)
currencies = st.sampled_from(["", "", "", "credit", "stamp"])
shifts = st.sampled_from([0, 0, 0, 0, 0.000_001, 1, 40, 3600, -1])
"""By how many seconds the clock moves before a call."""
_JUMPS = (40, DAY_S, DAY_S, 7 * DAY_S, 31 * DAY_S, 90 * DAY_S, -40, -DAY_S, -32 * DAY_S)
events = st.sampled_from([*_JUMPS, "restart", "sweep"])
"""By how many seconds the clock moves besides, or what the service does."""
lifetimes = st.sampled_from([DAY_S, 7 * DAY_S, 40, 1, 0.000_001, DAY_S])
"""Of holds and leases, in s."""
backwards = st.integers(0, 5)
"""Which of several, the newest first."""
seldom = st.integers(0, 4).map(lambda number: number == 4)
grant_amounts = st.integers(1, 120).map(lambda amount: amount if amount < 120 else MAX)
amounts = st.integers(0, 60)
funds = st.sampled_from([100, 1000, 0])
"""What an account begins with."""
refunds = st.integers(0, 12)
owners = st.sampled_from(["edge", "edge", "edge", "other"])


@st.composite
def _quantities(draw: st.DrawFn) -> dict[str, Any]:
    meter = draw(st.sampled_from(sorted(LONGEST)))
    quantity = draw(st.integers(0, LONGEST[meter]))
    if meter == "free" and quantity > 6:
        quantity = 2**62  # two of them are more than a day's counter can hold
    return {"metered": metered(meter, quantity, draw(st.sampled_from(["MISS", "HIT"])))}


prices = st.one_of(st.builds(lambda amount: {"amount": amount}, amounts), _quantities())
"""``amount`` or ``metered``, by name."""
recurrences = st.builds(
    lambda period, rollover: pb.Recurrence(period=period, max_rollover=rollover),
    st.sampled_from(pb.RefillPeriod.values()[1:]),
    st.sampled_from([0, 10, MAX]),
)
expiries = st.sampled_from([None, 1, 40, DAY_S, 31 * DAY_S, -1])
"""In how many seconds a grant expires."""
hold_terms = st.fixed_dictionaries(
    {
        "time_to_live": lifetimes.map(live),
        "expiry_policy": st.sampled_from(pb.ExpiryPolicy.values()),
        "excess_rule": st.sampled_from(pb.ExcessRule.values()),
    }
)
spendings = st.builds(
    lambda price, count: leases_pb2.LeaseSpending(**price, count=count, resource="line"),
    prices,
    st.sampled_from([0, 3]),
)
"""Lines of a lease's settlement."""


class Mistake(NamedTuple):
    """A request about the wrong thing; or a field of any, and what it must not have."""

    field: str = ""
    """Empty: its id is another's."""
    value: str = ""
    method: str = ""
    request: Any = None


_WRONG = (
    ("Capture", pb.CaptureRequest(amount=1), "hold_id"),
    ("ExtendHold", pb.ExtendHoldRequest(time_to_live=live(1)), "hold_id"),
    ("Release", pb.ReleaseRequest(), "hold_id"),
    ("SettleLease", leases_pb2.SettleLeaseRequest(owner="edge"), "hold_id"),
    ("VoidGrant", pb.VoidGrantRequest(), "grant_id"),
    ("Refund", pb.RefundRequest(), "entry_id"),
)
mistakes = st.sampled_from(
    [
        Mistake(),
        Mistake("request_id", ""),
        Mistake("account_id", "a/b"),
        Mistake("account_id", "a" * 65),
        *(Mistake(field, method=method, request=request) for method, request, field in _WRONG),
    ]
)
