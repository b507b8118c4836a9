"""What an edge pays with, put together: holds, leases, and payments by either."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tollmesh.credits.v1 import credits_pb2

from services.edge.credit.holds import HoldPolicy, Holds
from services.edge.credit.journal import Journal
from services.edge.credit.lease_calls import LeaseCalls
from services.edge.credit.lease_journal import LeaseJournal
from services.edge.credit.lease_keeper import LeasePolicy
from services.edge.credit.leases import Leases
from services.edge.credit.ledger import Ledger
from services.edge.credit.payments import Payments
from services.edge.settings import EdgeSettings
from services.process.logs import get_logger

if TYPE_CHECKING:  # the types have no class at run time
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub
    from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceAsyncStub

log = get_logger(__name__)

_POLICIES = {
    "release": credits_pb2.EXPIRY_POLICY_RELEASE,
    "debit_estimate": credits_pb2.EXPIRY_POLICY_DEBIT_ESTIMATE,
}


@dataclass(frozen=True, slots=True)
class Till:
    """All ways to pay."""

    ledger: Ledger
    holds: Holds
    leases: Leases
    payments: Payments

    def recover(self) -> None:
        """Settles, in the background, what an earlier process left unsettled."""
        holds, leases = self.holds.recover(), self.leases.start()
        if holds or leases:
            log.warning("holds_recovered", count=holds, leases=leases)


def open_till(
    settings: EdgeSettings, credits: CreditServiceAsyncStub, leases: LeaseServiceAsyncStub
) -> Till:
    """The ways to pay, with their journals in the cache directory. Raises OSError."""
    directory = settings.cache_dir
    ledger = Ledger(credits)
    leased = Leases(
        LeaseCalls(leases, ledger),
        LeaseJournal(directory / "leases.journal", settings.leases),
        f"edge:{settings.region}:{_identity(directory / 'edge-id')}",
        _lease_policy(settings),
    )
    holds = Holds(
        ledger,
        Journal(directory / "holds.journal", settings.deliveries),
        transfer_s=settings.transfer_s,
        slowest_bytes_per_s=settings.slowest_bytes_per_s,
        policy=HoldPolicy(
            unsettled=_POLICIES[settings.unsettled],
            debit_unreported=settings.unreported == "debit_estimate",
            top_up_url=settings.top_up_url,
        ),
        make_room=leased.make_room,
    )
    return Till(ledger, holds, leased, Payments(holds, leased))


def _lease_policy(settings: EdgeSettings) -> LeasePolicy:
    return LeasePolicy(
        credits=settings.lease_credits,
        live_s=settings.lease_s,
        settle_s=settings.lease_settle_s,
        idle_s=settings.lease_idle_s,
        transfer_s=settings.transfer_s,
        slowest_bytes_per_s=settings.slowest_bytes_per_s,
        expiry_policy=_POLICIES[settings.unsettled],
        debit_unreported=settings.unreported == "debit_estimate",
    )


def _identity(path: Path) -> str:
    """What tells this edge from others of its region: made once, kept in a file."""
    try:
        kept = path.read_text("ascii").strip()
    except FileNotFoundError:
        kept = ""
    if kept:
        return kept[:24]
    made = secrets.token_hex(6)
    partial = path.with_name(f".{path.name}")
    partial.write_text(made, "ascii")
    partial.replace(path)
    return made
