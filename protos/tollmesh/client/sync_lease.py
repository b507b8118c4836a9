"""A lease that threads spend without calls, settled in the background by a thread of its own."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from tollmesh.client.errors import LeaseExhausted, TollmeshError
from tollmesh.client.leases import LEAST_PAUSE_S, Account, Spending
from tollmesh.client.requests import Metered
from tollmesh.credits.v1 import leases_pb2 as pb

if TYPE_CHECKING:
    from tollmesh.client.sync_client import CreditClient


class Lease:
    """Use as ``with client.lease(...)``: opened there, settled and closed at the end.

    Any number of threads may spend it.
    """

    def __init__(
        self, client: CreditClient, request: pb.OpenLeaseRequest, settle_every_s: float
    ) -> None:
        self._client = client
        self._request = request
        self._every_s = settle_every_s
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._account: Account | None = None
        self._settling = threading.Thread(
            target=self._settle_for_ever, name="tollmesh-lease", daemon=True
        )

    def __enter__(self) -> Self:
        at = time.monotonic()
        answer = self._client.open_lease(self._request)
        self._account = Account(self._request, answer, at)
        self._settling.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Settles what is left. Raises what the service refused; the rest is settled."""
        self._stop.set()
        self._wake.set()
        self._settling.join()
        while not self._settle(final=True):
            pass

    @property
    def available(self) -> int:
        """What can still be spent without a settlement."""
        return self._books.available

    def spend(
        self,
        amount: int | None = None,
        *,
        metered: Metered | None = None,
        estimate: int | None = None,
        resource: str = "",
    ) -> None:
        """Spends without I/O. Raises LeaseExhausted; a settlement that may bring more begins.

        Args:
            amount: or, instead of it, ``metered`` with an ``estimate``.
            metered: the tariff prices it when it is settled, together with all of the same meter
                and resource that is settled then.
            estimate: what it costs at most: so much of the lease is set aside until then.
            resource: what it pays for, for the ledger.
        """
        try:
            self._books.spend(Spending.of(amount, metered, estimate, resource))
        except LeaseExhausted:
            self._wake.set()
            raise
        if self._books.low():
            self._wake.set()

    @property
    def _books(self) -> Account:
        if self._account is None:
            raise RuntimeError("the lease is open inside its with block only")
        return self._account

    def _settle_for_ever(self) -> None:
        while not self._stop.wait(min(LEAST_PAUSE_S, self._every_s)):
            self._wake.wait(self._every_s)
            self._wake.clear()
            if self._stop.is_set():
                return
            try:
                self._settle(final=False)
            except TollmeshError as error:
                # The same settlement is repeated next; until the lease ends it may be spent on.
                self._stop.wait(error.retry_after_s or self._every_s)

    def _settle(self, *, final: bool) -> bool:
        """One settlement; True when it closed the lease."""
        at = time.monotonic()
        request = self._books.settlement(final=final)
        try:
            answer = self._client.settle_lease(request)
        except TollmeshError as error:
            if self._books.refused(error.reason):
                return False
            raise
        self._books.settled(answer, at)
        return request.final
