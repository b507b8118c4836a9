"""Leases of the credit service, as the edge asks for them: repeated until there is an answer."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from tollmesh.credits.v1 import credits_pb2, leases_pb2

from services.edge.credit.journal import Entry
from services.edge.credit.lease_journal import LeaseTerms, Settlement
from services.edge.credit.ledger import REPEAT_S, TIMEOUT_S, Ledger, repeated

if TYPE_CHECKING:  # the type has no class at run time
    from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Leased:
    """A lease as the credit service has it."""

    hold_id: str
    remaining: int
    is_open: bool
    balance: int
    """What the account can spend besides."""


class LeaseCalls:
    """Opens and settles leases. Errors of the credit service come through as they are.

    Everything may be repeated with the same arguments: it is done once.
    """

    def __init__(self, stub: LeaseServiceAsyncStub, ledger: Ledger) -> None:
        self._stub = stub
        self._ledger = ledger

    async def tariff(self) -> leases_pb2.GetTariffResponse:
        """What every meter costs; asked once."""
        return await self._stub.GetTariff(leases_pb2.GetTariffRequest(), timeout=TIMEOUT_S)

    async def open(self, terms: LeaseTerms) -> Leased:
        """Opens a lease. What it lacks for what was spent of it is a shortfall, never refused."""
        request = leases_pb2.OpenLeaseRequest(
            request_id=f"{terms.key}-o",
            account_id=terms.account_id,
            currency=terms.currency,
            amount=terms.amount,
            min_amount=terms.min_amount,
            time_to_live=_duration(terms.live_ms),
            owner=terms.owner,
            expiry_policy=credits_pb2.ExpiryPolicy.ValueType(terms.policy),
            excess_rule=credits_pb2.EXCESS_RULE_SHORTFALL,
        )
        return _leased(
            await repeated(
                lambda: self._stub.OpenLease(request, timeout=TIMEOUT_S), time.time() + REPEAT_S
            )
        )

    async def settle(self, terms: LeaseTerms, hold_id: str, settlement: Settlement) -> Leased:
        """Settles a lease."""
        request = leases_pb2.SettleLeaseRequest(
            request_id=f"{terms.key}-s{settlement.number}",
            account_id=terms.account_id,
            hold_id=hold_id,
            owner=terms.owner,
            spendings=[
                leases_pb2.LeaseSpending(metered=metered, count=count, resource=terms.owner)
                for metered, count in _lines(terms, settlement)
            ],
            target_amount=settlement.target_amount,
            time_to_live=_duration(settlement.live_ms) if settlement.live_ms else None,
            final=settlement.final,
        )
        return _leased(
            await repeated(
                lambda: self._stub.SettleLease(request, timeout=TIMEOUT_S), time.time() + REPEAT_S
            )
        )

    async def debit(self, terms: LeaseTerms, settlement: Settlement) -> None:
        """Takes what was spent out of the balance, when the lease is gone."""
        for metered, _ in _lines(terms, settlement):
            entry = Entry(
                account_id=terms.account_id,
                request_id="",
                meter=metered.meter,
                cache_result=metered.cache_result,
                resource=terms.owner,
                estimate=0,
                hold_s=0,
                expires_at=0.0,
            )
            request_id = f"{terms.key}-d{settlement.number}-{metered.cache_result}"
            until = time.time() + REPEAT_S
            await self._ledger.debit(entry, metered.quantity, request_id, until)


def _lines(
    terms: LeaseTerms, settlement: Settlement
) -> list[tuple[credits_pb2.MeteredQuantity, int]]:
    """What was spent, and how many deliveries each line sums up."""
    return [
        (
            credits_pb2.MeteredQuantity(
                meter=terms.meter,
                quantity=spent.quantity,
                cache_result=credits_pb2.CacheResult.ValueType(result),
            ),
            spent.deliveries,
        )
        for result, spent in enumerate(settlement.lines)
        if spent.quantity
    ]


def _leased(answer: leases_pb2.OpenLeaseResponse | leases_pb2.SettleLeaseResponse) -> Leased:
    hold = answer.hold
    is_open = hold.state == credits_pb2.HOLD_STATE_OPEN
    return Leased(hold.hold_id, hold.remaining, is_open, answer.balance.available)


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration
