"""What simulated clients ask for."""

from __future__ import annotations

import itertools
import random
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from tests.support.credit_service import START_S, live, metered
from tests.support.history import Call, Message

WEIGHTS = {
    "Grant": 10,
    "Debit": 30,
    "BatchDebit": 6,
    "Reserve": 15,
    "Capture": 15,
    "Release": 5,
    "SetAccountTerms": 2,
    "GetBalance": 17,
}
HOT = ("hot-1", "hot-2")
ACCOUNTS = tuple(f"account-{number}" for number in range(300))
ACCOUNTS_A_ROUND = 10
OVERDRAFT = 50
"""The largest overdraft limit that an account gets."""
FORGOTTEN_S = 12 * 3600
"""Holds that are older are not asked for: the service may have forgotten those that are closed."""


class _Known(NamedTuple):
    """A hold that somebody was told of."""

    hold: pb.Hold
    time_s: float


class Asker:
    """Makes the requests of all clients, and learns from the answers."""

    def __init__(self, dice: random.Random, time: Callable[[], float]) -> None:
        self._dice, self._time = dice, time
        self._numbers = itertools.count()
        self._accounts: Sequence[str] = HOT
        self._holds: dict[str, deque[_Known]] = defaultdict(lambda: deque(maxlen=6))
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
            if isinstance(used, pb.DebitRequest):
                ids["request_id"] = used.request_id
        make: Callable[[dict[str, Any]], Message] = getattr(self, f"_{method.lower()}")
        request = make(ids)
        if method != "GetBalance":
            self._sent.append((method, request))
        return method, request

    def learn(self, call: Call) -> None:
        """What an answer tells."""
        if call.answer is None:
            return
        self._version = call.answer.version
        if isinstance(call.answer, pb.ReserveResponse):
            known = _Known(call.answer.hold, self._time())
            self._holds[call.account_id].append(known)

    def _grant(self, ids: dict[str, Any]) -> pb.GrantRequest:
        expire_time = self._dice.choice([None, None, *map(self._after, (-1, 0.5, 2, 50, 5000))])
        amount, priority = self._dice.randrange(1, 500), self._dice.randrange(-1, 3)
        return pb.GrantRequest(**ids, amount=amount, priority=priority, expire_time=expire_time)

    def _debit(self, ids: dict[str, Any]) -> pb.DebitRequest:
        return pb.DebitRequest(**ids, **self._price("scan"), resource="file")

    def _batchdebit(self, ids: dict[str, Any]) -> pb.BatchDebitRequest:
        debits = []
        for number in range(self._dice.randrange(1, 6)):
            account_id = self._dice.choice(self._accounts)
            request_id = f"b{next(self._numbers)}.{number}"
            debits.append(self._debit({"request_id": request_id, "account_id": account_id}))
        del ids
        return pb.BatchDebitRequest(debits=debits, all_or_nothing=self._dice.random() < 0.5)

    def _reserve(self, ids: dict[str, Any]) -> pb.ReserveRequest:
        return pb.ReserveRequest(
            **ids,
            **self._price(),
            time_to_live=live(self._dice.choice([0.1, 0.5, 2, 60, 4000])),
            expiry_policy=self._dice.choice(pb.ExpiryPolicy.values()),
            excess_rule=self._dice.choice(pb.ExcessRule.values()),
            resource="kept",
        )

    def _capture(self, ids: dict[str, Any]) -> pb.CaptureRequest:
        final = self._dice.random() < 0.4
        return pb.CaptureRequest(**self._hold(ids, late=False), **self._price(), final=final)

    def _release(self, ids: dict[str, Any]) -> pb.ReleaseRequest:
        return pb.ReleaseRequest(**self._hold(ids))

    def _setaccountterms(self, ids: dict[str, Any]) -> ledger_pb2.SetAccountTermsRequest:
        limit, shadow = (
            self._dice.choice([None, 0, OVERDRAFT]),
            self._dice.choice([None, True, False]),
        )
        return ledger_pb2.SetAccountTermsRequest(**ids, overdraft_limit=limit, shadow=shadow)

    def _getbalance(self, ids: dict[str, Any]) -> pb.GetBalanceRequest:
        currency = self._dice.choice(["", "", "", "stamp"])
        version = self._version if self._dice.random() < 0.3 else ""
        return pb.GetBalanceRequest(
            account_id=ids["account_id"], currency=currency, at_least_version=version
        )

    def _price(self, *more: str) -> dict[str, Any]:
        if self._dice.random() < 0.6:
            return {"amount": self._dice.randrange(40)}
        meter = self._dice.choice(["download", "upload", "probe", "parcel", *more])
        meter = "none" if self._dice.random() < 0.05 else meter
        quantity = self._dice.randrange(30 if meter == "probe" else 5000)
        result = self._dice.choice(["HIT", "MISS", "UNSPECIFIED"])
        return {"metered": metered(meter, quantity, result)}

    def _hold(self, ids: dict[str, Any], *, late: bool = True) -> dict[str, Any]:
        """One of the latest; unless ``late`` none whose expiry debits."""
        recent = self._time() - FORGOTTEN_S
        policies = {pb.EXPIRY_POLICY_DEBIT_ESTIMATE} if not late else set()
        for _ in range(3):
            known = [
                hold.hold_id
                for hold, time_s in self._holds[ids["account_id"]]
                if time_s > recent and hold.expiry_policy not in policies
            ]
            if known:
                return ids | {"hold_id": self._dice.choice(known)}
            ids["account_id"] = self._dice.choice(self._accounts)
        return ids | {"hold_id": "hold-1-00000000"}

    def _after(self, seconds: float) -> Timestamp:
        time = Timestamp()
        time.FromMicroseconds(round((START_S + self._time() + seconds) * 1_000_000))
        return time
