"""The messages of holds and leases and the domain's types, each made from the other."""

from __future__ import annotations

from fractions import Fraction

from google.protobuf.duration_pb2 import Duration
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2 as leases_pb

from services.credits.captures import Capture
from services.credits.hold_pages import HoldPage
from services.credits.holds import Release, view
from services.credits.leases import OpenLease, SettleLease, Spending
from services.credits.messages import balance_after, price_of, timestamp
from services.credits.names import entry_name, hold_name
from services.credits.parcels import Applied
from services.credits.records import Answer, ExcessRule, ExpiryPolicy, HoldView
from services.credits.reservations import ExtendHold, Reserve
from services.credits.tariff import FreePeriod, Tariff
from services.store.requests import fingerprint

_NEVER = pb.USAGE_PERIOD_UNSPECIFIED
_FREE_PERIODS = {
    FreePeriod.DAY: pb.USAGE_PERIOD_DAY,
    FreePeriod.MONTH: pb.USAGE_PERIOD_MONTH,
}


def to_reserve(request: pb.ReserveRequest) -> Reserve:
    """As it is."""
    return Reserve(
        request.account_id,
        request.currency,
        price_of(request),
        _live_us(request.time_to_live),
        ExpiryPolicy(request.expiry_policy or ExpiryPolicy.RELEASE),
        request.resource,
        request.request_id,
        fingerprint("Reserve", request.SerializeToString(deterministic=True)),
        ExcessRule(request.excess_rule or ExcessRule.BALANCE),
    )


def to_capture(request: pb.CaptureRequest) -> Capture:
    """As it is."""
    return Capture(
        request.account_id,
        request.hold_id,
        price_of(request),
        request.final,
        request.request_id,
        fingerprint("Capture", request.SerializeToString(deterministic=True)),
    )


def to_extend_hold(request: pb.ExtendHoldRequest) -> ExtendHold:
    """As it is."""
    return ExtendHold(
        request.account_id,
        request.hold_id,
        _live_us(request.time_to_live),
        price_of(request) if request.WhichOneof("price") else None,
        request.request_id,
        fingerprint("ExtendHold", request.SerializeToString(deterministic=True)),
    )


def to_release(request: pb.ReleaseRequest) -> Release:
    """As it is."""
    return Release(
        request.account_id,
        request.hold_id,
        request.request_id,
        fingerprint("Release", request.SerializeToString(deterministic=True)),
    )


def to_open_lease(request: leases_pb.OpenLeaseRequest) -> OpenLease:
    """As it is."""
    return OpenLease(
        request.account_id,
        request.currency,
        request.amount,
        request.min_amount,
        _live_us(request.time_to_live),
        request.owner,
        ExpiryPolicy(request.expiry_policy or ExpiryPolicy.RELEASE),
        ExcessRule(request.excess_rule or ExcessRule.BALANCE),
        request.request_id,
        fingerprint("OpenLease", request.SerializeToString(deterministic=True)),
    )


def to_settle_lease(request: leases_pb.SettleLeaseRequest) -> SettleLease:
    """As it is."""
    return SettleLease(
        request.account_id,
        request.hold_id,
        request.owner,
        [Spending(price_of(line), line.count or 1, line.resource) for line in request.spendings],
        request.target_amount,
        _live_us(request.time_to_live) if request.HasField("time_to_live") else 0,
        request.final,
        request.request_id,
        fingerprint("SettleLease", request.SerializeToString(deterministic=True)),
    )


def reserve_response(account_id: str, applied: Applied) -> pb.ReserveResponse:
    """The answer to a reservation."""
    return pb.ReserveResponse(
        hold=hold_after(account_id, applied.answer),
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def capture_response(account_id: str, applied: Applied) -> pb.CaptureResponse:
    """The answer to a capture."""
    answer = applied.answer
    return pb.CaptureResponse(
        entry_id=entry_name(answer.number),
        amount=answer.amount,
        hold=hold_after(account_id, answer),
        balance=balance_after(account_id, answer),
        version=str(applied.version),
        replayed=applied.replayed,
        shortfall=answer.shortfall,
    )


def extend_hold_response(account_id: str, applied: Applied) -> pb.ExtendHoldResponse:
    """The answer to an extension."""
    return pb.ExtendHoldResponse(
        hold=hold_after(account_id, applied.answer),
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def release_response(account_id: str, applied: Applied) -> pb.ReleaseResponse:
    """The answer to a release."""
    return pb.ReleaseResponse(
        amount=applied.answer.amount,
        hold=hold_after(account_id, applied.answer),
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def open_lease_response(account_id: str, applied: Applied) -> leases_pb.OpenLeaseResponse:
    """The answer to the opening of a lease."""
    return leases_pb.OpenLeaseResponse(
        hold=hold_after(account_id, applied.answer),
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def settle_lease_response(account_id: str, applied: Applied) -> leases_pb.SettleLeaseResponse:
    """The answer to a settlement."""
    return leases_pb.SettleLeaseResponse(
        amount=applied.answer.amount,
        hold=hold_after(account_id, applied.answer),
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
        shortfall=applied.answer.shortfall,
    )


def tariff_response(tariff: Tariff) -> leases_pb.GetTariffResponse:
    """The prices of all meters."""
    return leases_pb.GetTariffResponse(
        meters=[
            leases_pb.MeterRates(
                meter=meter,
                currency=rates.currency,
                hit=_rate(rates.hit),
                miss=_rate(rates.miss),
                minimum=rates.minimum,
                free_quantity=rates.free,
                free_period=_FREE_PERIODS[rates.free_period] if rates.free else _NEVER,
                shadow=rates.shadow,
            )
            for meter, rates in sorted(tariff.meters().items())
        ]
    )


def holds(account_id: str, page: HoldPage) -> list[pb.Hold]:
    """The holds of a page."""
    return [_hold(account_id, hold.currency, view(number, hold)) for number, hold in page.holds]


def hold_after(account_id: str, answer: Answer) -> pb.Hold:
    """The hold of an answer that has one."""
    if answer.hold is None:
        raise TypeError("the answer has no hold")
    return _hold(account_id, answer.currency, answer.hold)


def _hold(account_id: str, currency: str, hold: HoldView) -> pb.Hold:
    return pb.Hold(
        hold_id=hold_name(account_id, hold.number),
        account_id=account_id,
        currency=currency,
        amount=hold.amount,
        captured=hold.captured,
        remaining=hold.remaining,
        state=pb.HoldState.ValueType(hold.state),
        expire_time=timestamp(hold.expire_us),
        expiry_policy=pb.ExpiryPolicy.ValueType(hold.policy),
        excess_rule=pb.ExcessRule.ValueType(hold.excess_rule),
        shortfall=hold.shortfall,
        owner=hold.owner,
        resource=hold.resource,
    )


def _rate(rate: Fraction) -> leases_pb.Rate:
    return leases_pb.Rate(numerator=rate.numerator, denominator=rate.denominator)


def _live_us(live: Duration) -> int:
    """Microseconds; less than one counts as one."""
    return max(1, live.seconds * 1_000_000 + live.nanos // 1000)
