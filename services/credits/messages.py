"""The contract's messages and the domain's types, each made from the other; nothing is decided."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.debits import DEFAULT_CURRENCY, Debit, Price
from services.credits.errors import VersionUnknownError, invalid
from services.credits.grants import Grant
from services.credits.holds import Capture, Release, Reserve
from services.credits.ledger import Applied
from services.credits.names import entry_name, grant_name, hold_name
from services.credits.queries import BalanceView, UsageLine
from services.credits.records import (
    MAX_AMOUNT,
    NEVER_US,
    Answer,
    Entry,
    ExpiryPolicy,
    Lot,
    Metered,
)
from services.rpc.errors import ServiceError
from services.store.requests import fingerprint

MIN_SECONDS, MAX_SECONDS = -62_135_596_800, 253_402_300_799
"""The years 1 to 9999: the range of ``google.protobuf.Timestamp``."""


def to_grant(request: pb.GrantRequest) -> Grant:
    """Raises ``InvalidArgumentError``."""
    expires = request.HasField("expire_time")
    return Grant(
        request.account_id,
        request.currency or DEFAULT_CURRENCY,
        request.amount,
        request.priority,
        moment_us(request.expire_time, "expire_time") if expires else NEVER_US,
        request.resource,
        request.request_id,
        fingerprint("Grant", request.SerializeToString(deterministic=True)),
    )


def to_debit(request: pb.DebitRequest) -> Debit:
    """The same whether it came alone or in a batch."""
    return Debit(
        request.account_id,
        request.currency,
        _price(request),
        request.resource,
        request.request_id,
        fingerprint("Debit", request.SerializeToString(deterministic=True)),
    )


def to_reserve(request: pb.ReserveRequest) -> Reserve:
    """A time to live of less than a microsecond counts as one."""
    live = request.time_to_live
    return Reserve(
        request.account_id,
        request.currency,
        _price(request),
        max(1, live.seconds * 1_000_000 + live.nanos // 1000),
        ExpiryPolicy(request.expiry_policy or ExpiryPolicy.RELEASE),
        request.resource,
        request.request_id,
        fingerprint("Reserve", request.SerializeToString(deterministic=True)),
    )


def to_capture(request: pb.CaptureRequest) -> Capture:
    """As it is."""
    return Capture(
        request.account_id,
        request.hold_id,
        _price(request),
        request.final,
        request.request_id,
        fingerprint("Capture", request.SerializeToString(deterministic=True)),
    )


def to_release(request: pb.ReleaseRequest) -> Release:
    """As it is."""
    return Release(
        request.account_id,
        request.hold_id,
        request.request_id,
        fingerprint("Release", request.SerializeToString(deterministic=True)),
    )


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


def debit_response(account_id: str, applied: Applied) -> pb.DebitResponse:
    """The answer to a debit."""
    answer = applied.answer
    return pb.DebitResponse(
        entry_id=entry_name(answer.number),
        amount=answer.amount,
        balance=balance_after(account_id, answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def debit_error(error: ServiceError) -> pb.DebitError:
    """What ``Debit`` would answer."""
    return pb.DebitError(
        code=error.code.value[0],
        reason=error.reason_name(),
        message=str(error),
        metadata=error.metadata,
    )


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
    )


def balance_response(account_id: str, currency: str, view: BalanceView) -> pb.GetBalanceResponse:
    """The balance and the unspent grants."""
    purse = view.purse
    return pb.GetBalanceResponse(
        balance=pb.Balance(
            account_id=account_id,
            currency=currency,
            available=purse.available,
            held=purse.held,
            granted=purse.granted,
            spent=purse.spent,
            expired=purse.expired,
        ),
        grants=[_grant_balance(account_id, lot) for lot in view.lots],
        version=str(view.version),
    )


def hold_message(account_id: str, answer: Answer) -> pb.Hold:
    """The hold of an answer that has one."""
    hold = answer.hold
    if hold is None:
        raise TypeError("the answer has no hold")
    return pb.Hold(
        hold_id=hold_name(account_id, hold.number),
        account_id=account_id,
        currency=answer.currency,
        amount=hold.amount,
        captured=hold.captured,
        remaining=hold.remaining,
        state=pb.HoldState.ValueType(hold.state),
        expire_time=timestamp(hold.expire_us),
        expiry_policy=pb.ExpiryPolicy.ValueType(hold.policy),
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
    )


def timestamp(time_us: int) -> Timestamp:
    """Microseconds since 1970 as a message."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=microseconds * 1000)


def _price(request: pb.DebitRequest | pb.ReserveRequest | pb.CaptureRequest) -> Price:
    if not request.HasField("metered"):
        return request.amount
    metered = request.metered
    return Metered(metered.meter, metered.quantity, metered.cache_result)


def _metered_message(metered: Metered | None) -> pb.MeteredQuantity | None:
    if metered is None:
        return None
    return pb.MeteredQuantity(
        meter=metered.meter,
        quantity=metered.quantity,
        cache_result=pb.CacheResult.ValueType(metered.cache),
    )


def _grant_balance(account_id: str, lot: Lot) -> pb.GrantBalance:
    return pb.GrantBalance(
        grant_id=grant_name(account_id, lot.number),
        amount=lot.amount,
        remaining=lot.remaining,
        priority=lot.priority,
        expire_time=None if lot.expire_us == NEVER_US else timestamp(lot.expire_us),
        create_time=timestamp(lot.create_us),
    )
