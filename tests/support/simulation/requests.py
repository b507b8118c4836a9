"""What simulated clients ask for."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import leases_pb2, ledger_pb2

from tests.support.credit_service import START_S, live, metered
from tests.support.history import Call, Message
from tests.support.history_check import NEWEST

WEIGHTS = {
    "Grant": 9,
    "VoidGrant": 2,
    "Debit": 24,
    "BatchDebit": 5,
    "StreamDebits": 3,
    "Refund": 6,
    "Reserve": 10,
    "Capture": 12,
    "ExtendHold": 4,
    "Release": 3,
    "OpenLease": 4,
    "SettleLease": 8,
    "SetAccountTerms": 1,
    "GetAccountTerms": 1,
    "GetBalance": 9,
    "GetHold": 2,
    "ListHolds": 2,
    "GetUsage": 1,
    "ListEntries": 3,
}
HOT = ("hot-1", "hot-2")
ACCOUNTS = tuple(f"account-{number}" for number in range(300))
ACCOUNTS_A_ROUND = 10
OVERDRAFT = 50
"""The largest overdraft limit that an account gets."""
FORGOTTEN_S = 12 * 3600
"""Holds that are older are not asked for: the service may have forgotten those that are closed."""


class _Known(NamedTuple):
    """Something by name that somebody was told of."""

    name: str
    time_s: float


class Asker:
    """Makes the requests of all clients, and learns from the answers."""

    def __init__(self, dice: random.Random, time: Callable[[], float]) -> None:
        self._dice, self._time = dice, time
        self._numbers = itertools.count()
        self._accounts: Sequence[str] = HOT
        self._known: dict[tuple[str, str], deque[_Known]] = defaultdict(lambda: deque(maxlen=6))
        """By kind of thing and account."""
        self._sent: deque[tuple[str, Message]] = deque(maxlen=40)
        self._version = ""

    def new_round(self) -> None:
        """Other accounts; what was sent before the last round is not sent again."""
        self._accounts = (*HOT * 3, *self._dice.sample(ACCOUNTS, ACCOUNTS_A_ROUND))

    def request(self) -> tuple[str, Message]:
        """The next one: new, one that was sent before, or another with a request id of those."""
        dice = self._dice
        if self._sent and dice.random() < 0.06:
            return dice.choice(self._sent)
        (method,) = dice.choices(tuple(WEIGHTS), tuple(WEIGHTS.values()))
        ids = {"request_id": f"r{next(self._numbers)}", "account_id": dice.choice(self._accounts)}
        if self._sent and dice.random() < 0.02:
            used = dice.choice(self._sent)[1]
            ids["request_id"] = getattr(used, "request_id", ids["request_id"])
        make: Callable[[dict[str, Any]], Message] = getattr(self, f"_{method.lower()}")
        request = make(ids)
        if not method.startswith(("Get", "List")):
            self._sent.append((method, request))
        return method, request

    def learn(self, call: Call) -> None:
        """What an answer tells."""
        if call.answer is None:
            return
        self._version = call.answer.version
        match call.answer:
            case pb.ReserveResponse():
                self._learn("hold", call, call.answer.hold.hold_id)
            case leases_pb2.OpenLeaseResponse():
                self._learn("lease", call, call.answer.hold.hold_id)
            case pb.GrantResponse():
                self._learn("grant", call, call.answer.grant_id)
            case pb.DebitResponse() | pb.CaptureResponse():
                self._learn("entry", call, call.answer.entry_id)
            case _:
                pass

    def _learn(self, kind: str, call: Call, name: str) -> None:
        self._known[kind, call.account_id].append(_Known(name, self._time()))

    def _grant(self, ids: dict[str, Any]) -> pb.GrantRequest:
        expire_time = self._dice.choice([None, None, *map(self._after, (-1, 0.5, 2, 50, 5000))])
        amount, priority = self._dice.randrange(1, 500), self._dice.randrange(-1, 3)
        more: dict[str, Any] = {"expire_time": expire_time}
        if self._dice.random() < 0.1:
            end_time = self._after(self._dice.choice([-1, 40_000, 200_000]))
            rollover = self._dice.choice([0, 100])
            period = pb.REFILL_PERIOD_DAY
            more = {"recurrence": pb.Recurrence(
                period=period, end_time=end_time, max_rollover=rollover)}  # fmt: skip
        return pb.GrantRequest(**ids, amount=amount, priority=priority, **more)

    def _voidgrant(self, ids: dict[str, Any]) -> pb.VoidGrantRequest:
        return pb.VoidGrantRequest(**self._about("grant", ids))

    def _debit(self, ids: dict[str, Any]) -> pb.DebitRequest:
        return pb.DebitRequest(**ids, **self._price("scan"), resource="file")

    def _batchdebit(self, ids: dict[str, Any]) -> pb.BatchDebitRequest:
        together = self._dice.random() < 0.5
        return pb.BatchDebitRequest(debits=self._debits(ids), all_or_nothing=together)

    def _streamdebits(self, ids: dict[str, Any]) -> pb.StreamDebitsRequest:
        return pb.StreamDebitsRequest(debits=self._debits(ids))

    def _debits(self, ids: dict[str, Any]) -> list[pb.DebitRequest]:
        debits = []
        for number in range(self._dice.randrange(1, 6)):
            request_id = f"{ids['request_id']}.{number}"
            account_id = self._dice.choice(self._accounts)
            debits.append(self._debit({"request_id": request_id, "account_id": account_id}))
        return debits

    def _refund(self, ids: dict[str, Any]) -> pb.RefundRequest:
        amount = self._dice.choice([0, self._dice.randrange(1, 20)])
        return pb.RefundRequest(**self._about("entry", ids), amount=amount)

    def _reserve(self, ids: dict[str, Any]) -> pb.ReserveRequest:
        return pb.ReserveRequest(
            **ids,
            **self._price("scan"),
            time_to_live=live(self._dice.choice([0.1, 0.5, 2, 60, 4000])),
            expiry_policy=self._dice.choice(pb.ExpiryPolicy.values()),
            excess_rule=self._dice.choice(pb.ExcessRule.values()),
            resource="kept",
        )

    def _capture(self, ids: dict[str, Any]) -> pb.CaptureRequest:
        final = self._dice.random() < 0.4
        return pb.CaptureRequest(**self._about("hold", ids), **self._price("scan"), final=final)

    def _extendhold(self, ids: dict[str, Any]) -> pb.ExtendHoldRequest:
        price = self._price("scan") if self._dice.random() < 0.5 else {}
        time = live(self._dice.choice([0.5, 60]))
        return pb.ExtendHoldRequest(**self._about("hold", ids), **price, time_to_live=time)

    def _release(self, ids: dict[str, Any]) -> pb.ReleaseRequest:
        return pb.ReleaseRequest(**self._about("hold", ids))

    def _openlease(self, ids: dict[str, Any]) -> leases_pb2.OpenLeaseRequest:
        amount = self._dice.randrange(1, 300)
        return leases_pb2.OpenLeaseRequest(
            **ids,
            amount=amount,
            min_amount=self._dice.choice([0, 1, amount]),
            time_to_live=live(self._dice.choice([0.3, 2, 600])),
            owner=self._owner(),
            expiry_policy=self._dice.choice(pb.ExpiryPolicy.values()),
            excess_rule=self._dice.choice(pb.ExcessRule.values()),
        )

    def _settlelease(self, ids: dict[str, Any]) -> leases_pb2.SettleLeaseRequest:
        spendings = [
            leases_pb2.LeaseSpending(
                **self._price("scan"), count=self._dice.choice([0, 1, 7]), resource="spent"
            )
            for _ in range(self._dice.randrange(1, 4))
        ]
        return leases_pb2.SettleLeaseRequest(
            **self._about("lease", ids),
            owner=self._owner(),
            spendings=spendings,
            target_amount=self._dice.choice([0, 0, 100]),
            time_to_live=self._dice.choice([None, live(30)]),
            final=self._dice.random() < 0.2,
        )

    def _setaccountterms(self, ids: dict[str, Any]) -> ledger_pb2.SetAccountTermsRequest:
        limit, shadow = (
            self._dice.choice([None, 0, OVERDRAFT]),
            self._dice.choice([None, True, False]),
        )
        return ledger_pb2.SetAccountTermsRequest(**ids, overdraft_limit=limit, shadow=shadow)

    def _getaccountterms(self, ids: dict[str, Any]) -> ledger_pb2.GetAccountTermsRequest:
        return ledger_pb2.GetAccountTermsRequest(**self._fresh(ids))

    def _getbalance(self, ids: dict[str, Any]) -> pb.GetBalanceRequest:
        currency = self._dice.choice(["", "", "", "stamp"])
        return pb.GetBalanceRequest(**self._fresh(ids), currency=currency)

    def _gethold(self, ids: dict[str, Any]) -> pb.GetHoldRequest:
        about = self._about(self._dice.choice(["hold", "lease"]), ids)
        return pb.GetHoldRequest(**self._fresh(about), hold_id=about["hold_id"])

    def _listholds(self, ids: dict[str, Any]) -> pb.ListHoldsRequest:
        return pb.ListHoldsRequest(**self._fresh(ids), page_size=1000)

    def _getusage(self, ids: dict[str, Any]) -> pb.GetUsageRequest:
        period = self._dice.choice(pb.UsagePeriod.values())
        return pb.GetUsageRequest(account_id=ids["account_id"], period=period)

    def _listentries(self, ids: dict[str, Any]) -> pb.ListEntriesRequest:
        size = self._dice.randrange(1, NEWEST)
        return pb.ListEntriesRequest(**self._fresh(ids), page_size=size, newest_first=True)

    def _fresh(self, ids: dict[str, Any]) -> dict[str, Any]:
        """For a read: the account, and now and then the latest version that anybody was told."""
        version = self._version if self._dice.random() < 0.3 else ""
        return {"account_id": ids["account_id"], "at_least_version": version}

    def _owner(self) -> str:
        return "edge-2" if self._dice.random() < 0.05 else "edge-1"

    def _price(self, *more: str) -> dict[str, Any]:
        if self._dice.random() < 0.6:
            return {"amount": self._dice.randrange(40)}
        meter = self._dice.choice(["download", "upload", "probe", "parcel", *more])
        meter = "none" if self._dice.random() < 0.05 else meter
        quantity = self._dice.randrange(30 if meter == "probe" else 5000)
        result = self._dice.choice(["HIT", "MISS", "UNSPECIFIED"])
        return {"metered": metered(meter, quantity, result)}

    def _about(self, kind: str, ids: dict[str, Any]) -> dict[str, Any]:
        """One of the latest things of a kind, if possible of the account."""
        field = {"lease": "hold_id"}.get(kind, f"{kind}_id")
        recent = self._time() - FORGOTTEN_S
        for _ in range(3):
            known = [
                name for name, time_s in self._known[kind, ids["account_id"]] if time_s > recent
            ]
            if known:
                return ids | {field: self._dice.choice(known)}
            ids["account_id"] = self._dice.choice(self._accounts)
        return ids | {field: f"{kind}-1-00000000"}

    def _after(self, seconds: float) -> Timestamp:
        time = Timestamp()
        time.FromMicroseconds(round((START_S + self._time() + seconds) * 1_000_000))
        return time
