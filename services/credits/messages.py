"""The contract's messages and the domain's types, each made from the other; nothing is decided."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2 as leases_pb

from services.credits.debits import Price
from services.credits.errors import VersionUnknownError, invalid
from services.credits.names import entry_name, grant_name, hold_name
from services.credits.queries import BalanceView, UsageLine
from services.credits.records import (
    MAX_AMOUNT,
    NEVER_US,
    OVERDRAFT_LOT,
    Answer,
    Entry,
    GrantTerms,
    Lot,
    Metered,
    Purse,
)
from services.credits.watch import Change

Priced = (
    pb.DebitRequest
    | pb.ReserveRequest
    | pb.CaptureRequest
    | pb.ExtendHoldRequest
    | leases_pb.LeaseSpending
)
MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999: the range of ``google.protobuf.Timestamp``."""


def price_of(request: Priced) -> Price:
    """The amount or metered quantity of a request that has one of them."""
    if not request.HasField("metered"):
        return request.amount
    metered = request.metered
    return Metered(metered.meter, metered.quantity, metered.cache_result)


def moment_us(time: Timestamp, field: str) -> int:
    """Microseconds since 1970; raises ``InvalidArgumentError`` outside the years 1 to 9999."""
    if not MIN_SECONDS <= time.seconds <= MAX_SECONDS or not 0 <= time.nanos < 1_000_000_000:
        raise invalid(field, "is not a time between the years 1 and 9999")
    return time.seconds * 1_000_000 + time.nanos // 1000


def version_number(version: str) -> int:
    """The store's version that ``version_text`` wrote; 0 for none.

    Raises ``VersionUnknownError`` for what it never wrote.
    """
    if not version:
        return 0
    if not (version.isascii() and version.isdecimal()) or version.startswith("0"):
        raise VersionUnknownError
    number = int(version)
    if number > MAX_AMOUNT:
        raise VersionUnknownError
    return number


def balance_after(account_id: str, answer: Answer) -> pb.Balance:
    """The balance after a mutation."""
    return pb.Balance(
        account_id=account_id,
        currency=answer.currency,
        available=answer.available,
        held=answer.held,
        granted=answer.granted,
        spent=answer.spent,
        expired=answer.expired,
        voided=answer.voided,
        overdraft_limit=answer.overdraft_limit,
    )


def balance_response(account_id: str, currency: str, view: BalanceView) -> pb.GetBalanceResponse:
    """The balance and the unspent grants."""
    return pb.GetBalanceResponse(
        balance=_balance(account_id, currency, view.purse),
        grants=[
            _grant_balance(account_id, lot, view.recurring.get(lot.number)) for lot in view.lots
        ],
        version=str(view.version),
    )


def watch_response(account_id: str, currency: str, change: Change) -> pb.WatchBalanceResponse:
    """A change of a balance."""
    return pb.WatchBalanceResponse(
        balance=_balance(account_id, currency, change.purse),
        version=str(change.version),
        events=[
            pb.ThresholdEvent(threshold=crossing.threshold, below=crossing.below)
            for crossing in change.crossings
        ],
    )


def entry_message(account_id: str, number: int, entry: Entry) -> pb.Entry:
    """A line of the ledger."""
    return pb.Entry(
        entry_id=entry_name(number),
        account_id=account_id,
        currency=entry.currency,
        kind=pb.EntryKind.ValueType(entry.kind),
        amount=entry.amount,
        available_after=entry.available_after,
        held_after=entry.held_after,
        request_id=entry.request_id,
        hold_id=hold_name(account_id, entry.hold) if entry.hold else "",
        grant_id=grant_name(account_id, entry.grant) if entry.grant else "",
        metered=_metered_message(entry.metered),
        resource=entry.resource,
        create_time=timestamp(entry.create_us),
        shortfall=entry.shortfall,
        free_quantity=entry.free,
        refunded_entry_id=entry_name(entry.refunded) if entry.refunded else "",
        count=entry.count,
    )


def usage_message(line: UsageLine) -> pb.MeterUsage:
    """One meter's usage."""
    return pb.MeterUsage(
        meter=line.meter,
        cache_result=pb.CacheResult.ValueType(line.cache),
        quantity=line.usage.quantity,
        currency=line.currency,
        amount=line.usage.amount,
        count=line.usage.count,
        refunded_quantity=line.usage.refunded_quantity,
        refunded_amount=line.usage.refunded_amount,
        shortfall=line.usage.shortfall,
        free_quantity=line.usage.free,
        start_time=None if line.start_us is None else timestamp(line.start_us),
    )


def timestamp(time_us: int) -> Timestamp:
    """Microseconds since 1970 as a message."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)


def _balance(account_id: str, currency: str, purse: Purse) -> pb.Balance:
    return pb.Balance(
        account_id=account_id,
        currency=currency,
        available=purse.available,
        held=purse.held,
        granted=purse.granted,
        spent=purse.spent,
        expired=purse.expired,
        voided=purse.voided,
        overdraft_limit=purse.overdraft_limit,
    )


def _metered_message(metered: Metered | None) -> pb.MeteredQuantity | None:
    if metered is None:
        return None
    return pb.MeteredQuantity(
        meter=metered.meter,
        quantity=metered.quantity,
        cache_result=pb.CacheResult.ValueType(metered.cache),
    )


def _grant_balance(account_id: str, lot: Lot, terms: GrantTerms | None) -> pb.GrantBalance:
    if lot.number == OVERDRAFT_LOT:
        return pb.GrantBalance(amount=lot.amount, remaining=lot.remaining)
    grant = pb.GrantBalance(
        grant_id=grant_name(account_id, lot.number),
        amount=lot.amount if terms is None else terms.added or terms.amount,
        remaining=lot.remaining,
        priority=lot.priority,
        expire_time=None if lot.expire_us == NEVER_US else timestamp(lot.expire_us),
        create_time=timestamp(lot.create_us),
    )
    if terms is not None:
        _set_recurrence(grant, terms)
    return grant


def _set_recurrence(grant: pb.GrantBalance, terms: GrantTerms) -> None:
    """Says how a grant is refilled, and when next."""
    grant.recurrence.period = pb.RefillPeriod.ValueType(terms.period)
    grant.recurrence.max_rollover = terms.max_rollover
    if terms.end_us != NEVER_US:
        grant.recurrence.end_time.CopyFrom(timestamp(terms.end_us))
    if terms.next_refill_us != NEVER_US:
        grant.next_refill_time.CopyFrom(timestamp(terms.next_refill_us))
