"""Debits and their outcomes: messages and domain types, each made from the other.

These are made for every debit. A field of a message is set faster than it is given to the
constructor, and a part in its place faster than copied there.
"""

from __future__ import annotations

from typing import TypeVar

from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.debits import Debit
from services.credits.messages import price_of
from services.credits.names import entry_name
from services.credits.parcels import Applied
from services.rpc.errors import ServiceError
from services.store.requests import fingerprint

Outcomes = TypeVar("Outcomes", pb.BatchDebitResponse, pb.StreamDebitsResponse)


def to_debit(request: pb.DebitRequest) -> Debit:
    """The same whether it came alone or with others."""
    return Debit(
        request.account_id,
        request.currency,
        price_of(request),
        request.resource,
        request.request_id,
        fingerprint("Debit", request.SerializeToString(deterministic=True)),
    )


def debit_response(account_id: str, applied: Applied) -> pb.DebitResponse:
    """The answer to a debit."""
    response = pb.DebitResponse()
    _fill(response, account_id, applied)
    return response


def add_outcome(response: Outcomes, account_id: str, outcome: Applied | ServiceError) -> None:
    """Adds what became of a debit."""
    if isinstance(outcome, ServiceError):
        response.outcomes.add(error=debit_error(outcome))
    else:
        _fill(response.outcomes.add().debit, account_id, outcome)


def debit_error(error: ServiceError) -> pb.DebitError:
    """What ``Debit`` would answer."""
    return pb.DebitError(
        code=error.code.value[0],
        reason=error.reason_name(),
        message=str(error),
        metadata=error.metadata,
    )


def _fill(response: pb.DebitResponse, account_id: str, applied: Applied) -> None:
    answer, replayed, version = applied
    response.entry_id = entry_name(answer.number)
    response.amount = answer.amount
    response.version = str(version)
    balance = response.balance
    balance.account_id = account_id
    balance.currency = answer.currency
    balance.available = answer.available
    balance.granted = answer.granted
    balance.spent = answer.spent
    # A field that is zero need not be set: that is the same message.
    if replayed:
        response.replayed = True
    if answer.shortfall:
        response.shortfall = answer.shortfall
    if answer.held:
        balance.held = answer.held
    if answer.expired:
        balance.expired = answer.expired
    if answer.voided:
        balance.voided = answer.voided
    if answer.overdraft_limit:
        balance.overdraft_limit = answer.overdraft_limit
