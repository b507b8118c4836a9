"""The credit service in the test's own process, on any store, with a clock that tests set."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2, ledger_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceStub
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.credits.errors import ERRORS, STORE_ERRORS
from services.credits.lease_servicer import LeaseServicer
from services.credits.ledger import Ledger
from services.credits.ledger_servicer import LedgerServicer
from services.credits.records import FAMILY
from services.credits.servicer import CreditServicer
from services.credits.settings import DEFAULT_TARIFF, MeterPrice
from services.credits.sweeper import Sweeper
from services.credits.tariff import Tariff
from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.server import Server
from services.store.port import Store
from services.store.requests import RequestRecords
from services.store.retention import Retention

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

Value = Any  # of a field, as the generated message takes it

KEEP_S = 24 * 3600
DAY_S = 24 * 3600
START_S = 1_800_000_000
"""When the clock of a test starts; a little before 08:00 UTC."""
PRICES: Mapping[str, MeterPrice] = {
    **DEFAULT_TARIFF,
    "dear": MeterPrice(miss="9000000000000000000"),
    "free": MeterPrice(miss="0"),
    "parcel": MeterPrice(currency="stamp", miss="3"),
    "scan": MeterPrice(miss="1/10", free=1000, free_period="day", minimum=5),
    "probe": MeterPrice(miss="1", shadow=True),
}


@dataclass
class Clock:
    """Microseconds since 1970, as tests have it."""

    now_us: int = START_S * 1_000_000

    def __call__(self) -> int:
        return self.now_us

    def advance(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)

    def after(self, seconds: float) -> Timestamp:
        """The time in so many seconds."""
        time = Timestamp()
        time.FromMicroseconds(self.now_us + round(seconds * 1_000_000))
        return time


class CreditService:
    """The service on a store."""

    def __init__(
        self, store: Store, clock: Callable[[], int], retention: Retention | None = None
    ) -> None:
        tariff = Tariff({meter: price.rates() for meter, price in PRICES.items()})
        self.requests = RequestRecords(FAMILY, keep_s=KEEP_S, retention=retention)
        self.store = store
        self.clock = clock
        self.ledger = Ledger(store, tariff, self.requests, keep_s=KEEP_S, now_us=clock)
        self.sweeper = Sweeper(store, self.ledger, clock, retention)
        self.servicers: list[Any] = [
            CreditServicer(self.ledger),
            LeaseServicer(self.ledger),
            LedgerServicer(self.ledger, store),
        ]

    @property
    def direct(self) -> CreditServiceAsyncStub:
        """A stub that calls the servicers without a wire: no validation, errors as they are."""
        return cast("CreditServiceAsyncStub", _DirectStub(self.servicers))

    @asynccontextmanager
    async def served(self) -> AsyncIterator[CreditServiceAsyncStub]:
        """A stub of every contract that calls a real server over the loopback."""
        server = Server(
            listen="127.0.0.1:0", servicers=self.servicers, translate=STORE_ERRORS, drain_s=1
        )
        async with server, connect(server.address, errors=ERRORS) as channel:
            yield stub_of(channel)


def stub_of(channel: grpc.aio.Channel) -> CreditServiceAsyncStub:
    """A stub of every contract of the service."""
    stubs = [CreditServiceStub(channel), LeaseServiceStub(channel), LedgerServiceStub(channel)]
    return cast("CreditServiceAsyncStub", _Together(stubs))


class _Together:
    """Stubs or servicers as one: a method is that of the first one that has it."""

    def __init__(self, parts: Sequence[object]) -> None:
        self._parts = parts

    def __getattr__(self, name: str) -> Callable[..., Any]:
        part = next(part for part in self._parts if hasattr(part, name))
        method: Callable[..., Any] = getattr(part, name)
        return method


class _DirectStub(_Together):
    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = super().__getattr__(name)
        return lambda request, **_: method(request, Call(name))


class Account:
    """Calls about one account, with a fresh request id each unless the test gives one."""

    _numbers = itertools.count(1)

    def __init__(self, stub: CreditServiceAsyncStub, account_id: str = "alice") -> None:
        self.stub = stub
        self.account_id = account_id

    async def grant(self, amount: int, **fields: Value) -> pb.GrantResponse:
        return await self.stub.Grant(pb.GrantRequest(**self._with_ids(fields, amount)))

    async def debit(self, amount: int | None = None, **fields: Value) -> pb.DebitResponse:
        return await self.stub.Debit(self.debit_request(amount, **fields))

    def debit_request(self, amount: int | None = None, **fields: Value) -> pb.DebitRequest:
        return pb.DebitRequest(**self._with_ids(fields, amount))

    async def reserve(
        self, amount: int | None = None, *, seconds: float = 60, **fields: Value
    ) -> pb.ReserveResponse:
        ids = self._with_ids(fields, amount)
        return await self.stub.Reserve(pb.ReserveRequest(**ids, time_to_live=live(seconds)))

    async def capture(
        self, hold: pb.Hold, amount: int | None = None, **fields: Value
    ) -> pb.CaptureResponse:
        return await self.stub.Capture(
            pb.CaptureRequest(**self._with_ids(fields, amount), hold_id=hold.hold_id)
        )

    async def release(self, hold: pb.Hold, **fields: Value) -> pb.ReleaseResponse:
        return await self.stub.Release(
            pb.ReleaseRequest(**self._with_ids(fields), hold_id=hold.hold_id)
        )

    async def extend_hold(
        self, hold: pb.Hold, amount: int | None = None, *, seconds: float = 60, **fields: Value
    ) -> pb.ExtendHoldResponse:
        ids = self._with_ids(fields, amount)
        return await self.stub.ExtendHold(
            pb.ExtendHoldRequest(**ids, hold_id=hold.hold_id, time_to_live=live(seconds))
        )

    async def get_hold(self, hold: pb.Hold) -> pb.Hold:
        request = pb.GetHoldRequest(account_id=self.account_id, hold_id=hold.hold_id)
        return (await self.stub.GetHold(request)).hold

    async def holds(self, **fields: Value) -> list[pb.Hold]:
        request = pb.ListHoldsRequest(account_id=self.account_id, page_size=1000, **fields)
        return list((await self.stub.ListHolds(request)).holds)

    async def open_lease(
        self, amount: int, *, seconds: float = 60, owner: str = "edge", **fields: Value
    ) -> leases_pb2.OpenLeaseResponse:
        request = leases_pb2.OpenLeaseRequest(
            **self._with_ids(fields, amount), owner=owner, time_to_live=live(seconds)
        )
        answer: leases_pb2.OpenLeaseResponse = await cast("Any", self.stub).OpenLease(request)
        return answer

    async def settle(
        self, lease: pb.Hold, *spendings: Value, owner: str = "edge", **fields: Value
    ) -> leases_pb2.SettleLeaseResponse:
        """Spendings are amounts, metered quantities, or whole ``LeaseSpending`` messages."""
        request = leases_pb2.SettleLeaseRequest(
            **self._with_ids(fields),
            owner=owner,
            hold_id=lease.hold_id,
            spendings=[_spending(spending) for spending in spendings],
        )
        answer: leases_pb2.SettleLeaseResponse = await cast("Any", self.stub).SettleLease(request)
        return answer

    async def void(self, grant_id: str, **fields: Value) -> pb.VoidGrantResponse:
        request = pb.VoidGrantRequest(**self._with_ids(fields), grant_id=grant_id)
        return await self.stub.VoidGrant(request)

    async def refund(
        self, entry_id: str, amount: int | None = None, **fields: Value
    ) -> pb.RefundResponse:
        request = pb.RefundRequest(**self._with_ids(fields, amount), entry_id=entry_id)
        return await self.stub.Refund(request)

    async def set_terms(self, **fields: Value) -> ledger_pb2.SetAccountTermsResponse:
        request = ledger_pb2.SetAccountTermsRequest(**self._with_ids(fields))
        answer: ledger_pb2.SetAccountTermsResponse = await cast("Any", self.stub).SetAccountTerms(
            request
        )
        return answer

    async def terms(self, **fields: Value) -> ledger_pb2.AccountTerms:
        request = ledger_pb2.GetAccountTermsRequest(account_id=self.account_id, **fields)
        answer: ledger_pb2.GetAccountTermsResponse = await cast("Any", self.stub).GetAccountTerms(
            request
        )
        return answer.terms

    async def balance(self, currency: str = "", **fields: Value) -> pb.GetBalanceResponse:
        return await self.stub.GetBalance(
            pb.GetBalanceRequest(account_id=self.account_id, currency=currency, **fields)
        )

    async def entries(self, **fields: Value) -> list[pb.Entry]:
        request = pb.ListEntriesRequest(account_id=self.account_id, page_size=1000, **fields)
        return list((await self.stub.ListEntries(request)).entries)

    async def usage(self, **fields: Value) -> list[pb.MeterUsage]:
        request = pb.GetUsageRequest(account_id=self.account_id, **fields)
        return list((await self.stub.GetUsage(request)).usage)

    def _with_ids(self, fields: dict[str, Any], amount: int | None = None) -> dict[str, Any]:
        ids = {"request_id": f"request-{next(self._numbers)}", "account_id": self.account_id}
        return ids | fields | ({} if amount is None else {"amount": amount})


def _spending(spending: Value) -> leases_pb2.LeaseSpending:
    if isinstance(spending, int):
        return leases_pb2.LeaseSpending(amount=spending)
    if isinstance(spending, pb.MeteredQuantity):
        return leases_pb2.LeaseSpending(metered=spending)
    assert isinstance(spending, leases_pb2.LeaseSpending)
    return spending


def live(seconds: float) -> Duration:
    """How long a hold or lease lives."""
    duration = Duration()
    duration.FromMicroseconds(round(seconds * 1_000_000))
    return duration


def metered(meter: str, quantity: int, result: str = "UNSPECIFIED") -> pb.MeteredQuantity:
    """A quantity of a meter; ``result``: HIT, MISS or UNSPECIFIED."""
    return pb.MeteredQuantity(
        meter=meter,
        quantity=quantity,
        cache_result=pb.CacheResult.Value(f"CACHE_RESULT_{result}"),
    )
