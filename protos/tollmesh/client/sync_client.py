"""``CreditClient``: every operation of the credit service, for threads.

Made of ``async_client.py`` by ``unasync``: change that one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Self

from tollmesh.client import errors, requests
from tollmesh.client.sync_calls import SyncCalls
from tollmesh.client.sync_lease import Lease
from tollmesh.client.sync_reads import SyncReads
from tollmesh.client.errors import TollmeshError
from tollmesh.client.options import Batching, Retries, Tls
from tollmesh.client.request_ids import new_request_id
from tollmesh.client.requests import Metered
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2 as lease_pb

_CREDITS = "/tollmesh.credits.v1.CreditService/"
_LEASES = "/tollmesh.credits.v1.LeaseService/"


class CreditClient(SyncReads):
    """A client of one credit service.

    Every method takes ``deadline_s`` for the whole call, retries included, and every mutation a
    ``request_id``; one that is not given is made. A call is repeated only when the contract allows
    it, with the same id. All raise TollmeshError's subclasses; ``error.request_id`` tells the id.

    Args:
        target: ``host:port``.
        tls: None for plain text.
        deadline_s: of calls that name none.
        metadata: sent with each call; keys in lower case.
        retries: when and how often calls are repeated.
        batching: how concurrent ``debit`` calls travel together.
        close_grace_s: how long ``close`` lets debits finish that are under way.
    """

    def __init__(
        self,
        target: str,
        *,
        tls: Tls | None = None,
        deadline_s: float = 15.0,
        metadata: Mapping[str, str] | None = None,
        retries: Retries | None = None,
        batching: Batching | None = None,
        close_grace_s: float = 5.0,
    ) -> None:
        self._calls = SyncCalls(
            target, tls, deadline_s, metadata or {}, retries or Retries(), batching or Batching()
        )
        self._close_grace_s = close_grace_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets debits under way finish, then closes; later calls raise ClientClosed."""
        self._calls.close(self._close_grace_s)

    def grant(
        self,
        account_id: str,
        amount: int,
        *,
        currency: str = "",
        priority: int = 0,
        expire_time: datetime | None = None,
        recurrence: pb.Recurrence | None = None,
        resource: str = "",
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.GrantResponse:
        """Adds credit; with a recurrence, again each period."""
        request = pb.GrantRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            currency=currency,
            amount=amount,
            priority=priority,
            expire_time=requests.timestamp(expire_time),
            recurrence=recurrence,
            resource=resource,
        )
        return self._calls.call(f"{_CREDITS}Grant", request, pb.GrantResponse, deadline_s)

    def void_grant(
        self,
        account_id: str,
        grant_id: str,
        *,
        resource: str = "",
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.VoidGrantResponse:
        """Takes back what is unspent of a grant. Raises GrantNotFound, GrantNotOpen."""
        request = pb.VoidGrantRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            grant_id=grant_id,
            resource=resource,
        )
        path = f"{_CREDITS}VoidGrant"
        return self._calls.call(path, request, pb.VoidGrantResponse, deadline_s)

    def debit(
        self,
        account_id: str,
        amount: int | None = None,
        *,
        metered: Metered | None = None,
        currency: str = "",
        resource: str = "",
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.DebitResponse:
        """Takes an amount, or the price of a metered quantity; travels with concurrent debits.

        Raises InsufficientCredit, MeterUnknown, QueueFull. Debits that are under way at the same
        time may be applied in any order.
        """
        request = requests.debit(account_id, amount, metered, currency, resource, request_id)
        return self._calls.debits().debit(request, self._calls.deadline(deadline_s))

    def debit_batch(
        self,
        debits: Sequence[pb.DebitRequest],
        *,
        all_or_nothing: bool = False,
        deadline_s: float | None = None,
    ) -> list[pb.DebitResponse | TollmeshError]:
        """Many debits in one call; gives, does not raise, what became of each, in order."""
        request = requests.batch(debits, all_or_nothing=all_or_nothing)
        path = f"{_CREDITS}BatchDebit"
        response = self._calls.call(path, request, pb.BatchDebitResponse, deadline_s)
        return [
            outcome.debit if outcome.HasField("debit") else errors.of_outcome(outcome.error)
            for outcome in response.outcomes
        ]

    def refund(
        self,
        account_id: str,
        entry_id: str,
        amount: int = 0,
        *,
        resource: str = "",
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.RefundResponse:
        """Reverses a debit or capture; amount 0: all that is left of it."""
        request = pb.RefundRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            entry_id=entry_id,
            amount=amount,
            resource=resource,
        )
        return self._calls.call(f"{_CREDITS}Refund", request, pb.RefundResponse, deadline_s)

    def reserve(
        self,
        account_id: str,
        amount: int | None = None,
        *,
        time_to_live_s: float,
        metered: Metered | None = None,
        currency: str = "",
        expiry_policy: pb.ExpiryPolicy.ValueType = pb.EXPIRY_POLICY_UNSPECIFIED,
        excess_rule: pb.ExcessRule.ValueType = pb.EXCESS_RULE_UNSPECIFIED,
        resource: str = "",
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.ReserveResponse:
        """Sets credit aside under a hold."""
        requests.one_price(amount, metered)
        request = pb.ReserveRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            currency=currency,
            amount=amount,  # type: ignore[arg-type]  # None: not set
            metered=metered,
            time_to_live=requests.duration(time_to_live_s),
            expiry_policy=expiry_policy,
            excess_rule=excess_rule,
            resource=resource,
        )
        return self._calls.call(f"{_CREDITS}Reserve", request, pb.ReserveResponse, deadline_s)

    def capture(
        self,
        account_id: str,
        hold_id: str,
        amount: int | None = None,
        *,
        metered: Metered | None = None,
        final: bool = False,
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.CaptureResponse:
        """Debits a hold; with ``final``, releases the rest. Raises HoldNotFound, HoldNotOpen."""
        requests.one_price(amount, metered)
        request = pb.CaptureRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            hold_id=hold_id,
            amount=amount,  # type: ignore[arg-type]  # None: not set
            metered=metered,
            final=final,
        )
        return self._calls.call(f"{_CREDITS}Capture", request, pb.CaptureResponse, deadline_s)

    def extend_hold(
        self,
        account_id: str,
        hold_id: str,
        *,
        time_to_live_s: float,
        amount: int | None = None,
        metered: Metered | None = None,
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.ExtendHoldResponse:
        """Prolongs a hold, and adds to it."""
        requests.one_price(amount, metered, needed=False)
        request = pb.ExtendHoldRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            hold_id=hold_id,
            time_to_live=requests.duration(time_to_live_s),
            amount=amount,  # type: ignore[arg-type]  # None: not set
            metered=metered,
        )
        path = f"{_CREDITS}ExtendHold"
        return self._calls.call(path, request, pb.ExtendHoldResponse, deadline_s)

    def release(
        self,
        account_id: str,
        hold_id: str,
        *,
        request_id: str | None = None,
        deadline_s: float | None = None,
    ) -> pb.ReleaseResponse:
        """Gives a hold back."""
        request = pb.ReleaseRequest(
            request_id=request_id or new_request_id(), account_id=account_id, hold_id=hold_id
        )
        return self._calls.call(f"{_CREDITS}Release", request, pb.ReleaseResponse, deadline_s)

    def open_lease(
        self, request: lease_pb.OpenLeaseRequest, *, deadline_s: float | None = None
    ) -> lease_pb.OpenLeaseResponse:
        """Sets credit aside for an owner; a request id is made when the request has none."""
        request.request_id = request.request_id or new_request_id()
        path = f"{_LEASES}OpenLease"
        return self._calls.call(path, request, lease_pb.OpenLeaseResponse, deadline_s)

    def settle_lease(
        self, request: lease_pb.SettleLeaseRequest, *, deadline_s: float | None = None
    ) -> lease_pb.SettleLeaseResponse:
        """Debits what the owner spent; a request id is made when the request has none."""
        request.request_id = request.request_id or new_request_id()
        path = f"{_LEASES}SettleLease"
        return self._calls.call(path, request, lease_pb.SettleLeaseResponse, deadline_s)

    def lease(
        self,
        account_id: str,
        amount: int,
        *,
        owner: str,
        min_amount: int = 1,
        currency: str = "",
        time_to_live_s: float = 60.0,
        settle_every_s: float = 1.0,
        expiry_policy: pb.ExpiryPolicy.ValueType = pb.EXPIRY_POLICY_UNSPECIFIED,
        excess_rule: pb.ExcessRule.ValueType = pb.EXCESS_RULE_UNSPECIFIED,
    ) -> Lease:
        """A lease to spend locally, for ``with``; opened there with what is to be had."""
        request = lease_pb.OpenLeaseRequest(
            account_id=account_id,
            currency=currency,
            amount=amount,
            min_amount=min_amount,
            time_to_live=requests.duration(time_to_live_s),
            owner=owner,
            expiry_policy=expiry_policy,
            excess_rule=excess_rule,
        )
        return Lease(self, request, settle_every_s)
