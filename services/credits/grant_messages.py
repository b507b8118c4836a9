"""The messages of grants and refunds and the domain's types, each made from the other."""

from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.debits import DEFAULT_CURRENCY
from services.credits.grants import Grant, Recurrence, VoidGrant
from services.credits.messages import balance_after, moment_us
from services.credits.names import entry_name, grant_name
from services.credits.parcels import Applied
from services.credits.records import NEVER_US, RefillPeriod
from services.credits.refunds import Refund
from services.store.requests import fingerprint


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
        _recurrence(request.recurrence) if request.HasField("recurrence") else None,
    )


def to_void_grant(request: pb.VoidGrantRequest) -> VoidGrant:
    """As it is."""
    return VoidGrant(
        request.account_id,
        request.grant_id,
        request.resource,
        request.request_id,
        fingerprint("VoidGrant", request.SerializeToString(deterministic=True)),
    )


def to_refund(request: pb.RefundRequest) -> Refund:
    """As it is."""
    return Refund(
        request.account_id,
        request.entry_id,
        request.amount,
        request.resource,
        request.request_id,
        fingerprint("Refund", request.SerializeToString(deterministic=True)),
    )


def grant_response(account_id: str, applied: Applied) -> pb.GrantResponse:
    """The answer to a grant."""
    return pb.GrantResponse(
        grant_id=grant_name(account_id, applied.answer.number),
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def void_grant_response(account_id: str, applied: Applied) -> pb.VoidGrantResponse:
    """The answer to the voiding of a grant."""
    return pb.VoidGrantResponse(
        amount=applied.answer.amount,
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def refund_response(account_id: str, applied: Applied) -> pb.RefundResponse:
    """The answer to a refund."""
    return pb.RefundResponse(
        entry_id=entry_name(applied.answer.number),
        amount=applied.answer.amount,
        balance=balance_after(account_id, applied.answer),
        version=str(applied.version),
        replayed=applied.replayed,
    )


def _recurrence(recurrence: pb.Recurrence) -> Recurrence:
    ends = recurrence.HasField("end_time")
    return Recurrence(
        RefillPeriod(recurrence.period),
        moment_us(recurrence.end_time, "recurrence.end_time") if ends else NEVER_US,
        recurrence.max_rollover,
    )
