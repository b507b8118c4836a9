"""Requests of both clients, made from plain Python values.

Raises TypeError and ValueError for what fits no field; the rules of the contract are the service's.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tollmesh.client.request_ids import new_request_id
from tollmesh.credits.v1 import credits_pb2 as pb

Metered = pb.MeteredQuantity


def debit(
    account_id: str,
    amount: int | None,
    metered: Metered | None,
    currency: str,
    resource: str,
    request_id: str | None,
) -> pb.DebitRequest:
    """A debit of an amount, or of what a metered quantity costs: exactly one of the two."""
    # A field is set faster than it is given to the constructor, and this is done for each debit.
    request = pb.DebitRequest()
    request.request_id = request_id or new_request_id()
    request.account_id = account_id
    if metered is None and amount is not None:
        request.amount = amount
    else:
        one_price(amount, metered)
        request.metered.CopyFrom(metered)  # type: ignore[arg-type]  # not None: there is one price
    if currency:
        request.currency = currency
    if resource:
        request.resource = resource
    return request


def one_price(amount: int | None, metered: Metered | None, *, needed: bool = True) -> None:
    """Raises ValueError for two prices (the later one would win), or, where one is needed, none."""
    given = (amount is not None) + (metered is not None)
    if given > 1 or (needed and not given):
        raise ValueError("give an amount or a metered quantity, and not both")


def timestamp(moment: datetime | None) -> Timestamp | None:
    """A time as the contract has it; one without a zone is UTC."""
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    return stamp


def duration(seconds: float | None) -> Duration | None:
    """A span as the contract has it."""
    if seconds is None:
        return None
    span = Duration()
    span.FromMicroseconds(round(seconds * 1_000_000))
    return span


def batch(debits: Sequence[pb.DebitRequest], *, all_or_nothing: bool) -> pb.BatchDebitRequest:
    """A batch in which each debit has a request id, given or made."""
    request = pb.BatchDebitRequest(debits=debits, all_or_nothing=all_or_nothing)
    for one in request.debits:
        one.request_id = one.request_id or new_request_id()
    return request
