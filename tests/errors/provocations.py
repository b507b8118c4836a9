"""How errors are provoked: a function a reason, and those of the credit service."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from tollmesh.credits.v1 import credits_pb2 as credit
from tollmesh.credits.v1 import leases_pb2 as lease

from services.rpc.errors import DOMAIN
from tests.errors.conftest import Wire
from tests.support.refusal import Refusal, refused

Provocation = Callable[[Wire], Awaitable[Refusal]]
PROVOCATIONS: dict[str, Provocation] = {}
LARGEST = (1 << 63) - 1


def provokes(reason: str) -> Callable[[Provocation], Provocation]:
    """Registers what provokes a reason."""

    def register(provocation: Provocation) -> Provocation:
        PROVOCATIONS[reason] = provocation
        return provocation

    return register


def new_id() -> str:
    """For one request."""
    return secrets.token_hex(8)


def grant(account: str, amount: int = 1, request_id: str | None = None) -> credit.GrantRequest:
    """Of credit that never expires."""
    request_id = new_id() if request_id is None else request_id
    return credit.GrantRequest(request_id=request_id, account_id=account, amount=amount)


@provokes("INSUFFICIENT_CREDIT")
async def _(wire: Wire) -> Refusal:
    request = credit.DebitRequest(request_id=new_id(), account_id="poor", amount=1)
    return await refused(wire.credits.Debit(request))


@provokes("HOLD_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    request = credit.ReleaseRequest(request_id=new_id(), account_id="someone", hold_id="nohold")
    return await refused(wire.credits.Release(request))


@provokes("HOLD_NOT_OPEN")
async def _(wire: Wire) -> Refusal:
    await wire.credits.Grant(grant("holder", 10))
    reservation = credit.ReserveRequest(
        request_id=new_id(), account_id="holder", amount=5, time_to_live=Duration(seconds=60)
    )
    hold = (await wire.credits.Reserve(reservation)).hold.hold_id

    def release() -> Awaitable[Any]:
        request = credit.ReleaseRequest(request_id=new_id(), account_id="holder", hold_id=hold)
        released: Awaitable[Any] = wire.credits.Release(request)
        return released

    await release()
    return await refused(release())


@provokes("METER_UNKNOWN")
async def _(wire: Wire) -> Refusal:
    metered = credit.MeteredQuantity(meter="moonlight", quantity=1)
    request = credit.DebitRequest(request_id=new_id(), account_id="someone", metered=metered)
    return await refused(wire.credits.Debit(request))


@provokes("AMOUNT_OUT_OF_RANGE")
async def _(wire: Wire) -> Refusal:
    await wire.credits.Grant(grant("rich", LARGEST))
    return await refused(wire.credits.Grant(grant("rich", LARGEST)))


@provokes("VERSION_UNKNOWN")
async def _(wire: Wire) -> Refusal:
    request = credit.GetBalanceRequest(account_id="someone", at_least_version=str(1 << 60))
    return await refused(wire.credits.GetBalance(request))


@provokes("GRANT_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.credits.VoidGrant(_void("someone", "nogrant")))


@provokes("GRANT_NOT_OPEN")
async def _(wire: Wire) -> Refusal:
    made = (await wire.credits.Grant(grant("payer", 10))).grant_id
    await wire.credits.VoidGrant(_void("payer", made))
    return await refused(wire.credits.VoidGrant(_void("payer", made)))


@provokes("ENTRY_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.credits.Refund(_refund("someone", "noentry")))


@provokes("REFUND_EXCEEDS_ENTRY")
async def _(wire: Wire) -> Refusal:
    await wire.credits.Grant(grant("returner", 10))
    debit = credit.DebitRequest(request_id=new_id(), account_id="returner", amount=4)
    entry = (await wire.credits.Debit(debit)).entry_id
    return await refused(wire.credits.Refund(_refund("returner", entry, 5)))


@provokes("BATCH_ABORTED")
async def _(wire: Wire) -> Refusal:
    debits = [
        credit.DebitRequest(request_id=new_id(), account_id="poor", amount=amount)
        for amount in (0, 1)
    ]
    batch = credit.BatchDebitRequest(debits=debits, all_or_nothing=True)
    error = (await wire.credits.BatchDebit(batch)).outcomes[0].error
    (code,) = (code for code in grpc.StatusCode if code.value[0] == error.code)
    metadata = dict(error.metadata)
    # An outcome has no ErrorInfo of its own.
    return Refusal(code, error.message, error.reason, DOMAIN, metadata, frozenset())


@provokes("LEASE_NOT_OWNED")
async def _(wire: Wire) -> Refusal:
    await wire.credits.Grant(grant("lessor", 10))
    request = lease.OpenLeaseRequest(
        request_id=new_id(),
        account_id="lessor",
        amount=5,
        time_to_live=Duration(seconds=60),
        owner="edge-1",
    )
    opened = (await wire.leases.OpenLease(request)).hold.hold_id
    settlement = lease.SettleLeaseRequest(
        request_id=new_id(), account_id="lessor", hold_id=opened, owner="edge-2"
    )
    return await refused(wire.leases.SettleLease(settlement))


@provokes("ACCOUNT_FULL")
async def _(wire: Wire) -> Refusal:
    grants = [grant("collector") for _ in range(65)]
    for number, request in enumerate(grants):
        request.currency = f"stamp-{number}"
    await asyncio.gather(*(wire.credits.Grant(request) for request in grants[1:]))
    return await refused(wire.credits.Grant(grants[0]))


def _void(account: str, grant_id: str) -> credit.VoidGrantRequest:
    return credit.VoidGrantRequest(request_id=new_id(), account_id=account, grant_id=grant_id)


def _refund(account: str, entry_id: str, amount: int = 0) -> credit.RefundRequest:
    return credit.RefundRequest(
        request_id=new_id(), account_id=account, entry_id=entry_id, amount=amount
    )
