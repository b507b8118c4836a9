"""Concurrent clients of the credit service whose calls become a history.

The seed decides what each client asks, not how the calls of several interleave.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.credits.errors import ERRORS
from services.rpc.client import connect
from tests.support.credit_service import live, metered
from tests.support.history import History, Message, Stub, Target
from tests.support.service_process import ServiceProcess, running

ACCOUNTS = ("ann", "ben", "cat")
CLIENTS = 8
HOLD_S = 86_400
METHODS = {
    "Grant": 3,
    "Debit": 8,
    "BatchDebit": 3,
    "Reserve": 5,
    "Capture": 5,
    "Release": 2,
    "GetBalance": 6,
}


class Clients:
    """The clients of one history; each call goes to any of the targets."""

    def __init__(self, seed: int, history: History, *targets: Target) -> None:
        self.seed, self.history, self.targets = seed, history, targets
        self.holds = {name: ["hold-1-00000000"] for name in ACCOUNTS}
        self.sent: list[tuple[str, Message]] = []

    async def run(self, calls: int) -> None:
        """Makes so many calls of each client, all clients at once."""
        async with asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(number, calls))

    async def _client(self, client: int, calls: int) -> None:
        asker = _Asker(random.Random(f"{self.seed} {client}"), self.holds, f"{client}")
        for number in range(calls):
            method, request = asker.request(number, self.sent)
            if method != "GetBalance":
                self.sent = [*self.sent[-30:], (method, request)]
            if asker.dice.random() < 0.05:
                await asyncio.gather(self._until_known(asker.dice, method, request),
                                     self._until_known(asker.dice, method, request))  # fmt: skip
            else:
                await self._until_known(asker.dice, method, request)

    async def _until_known(self, dice: random.Random, method: str, request: Message) -> None:
        """Asks again, with the same request id, until the outcome is known."""
        while True:
            stub = await dice.choice(self.targets).stub()
            calls = await self.history.call(stub, method, request)
            if not any(call.unknown for call in calls):
                break
            await asyncio.sleep(0.01)  # the killed service is noticed by others too
        for call in calls:
            if method == "Reserve" and call.answer:
                self.holds[call.account_id].append(call.answer.hold.hold_id)


class _Asker:
    """Makes one client's requests."""

    def __init__(self, dice: random.Random, holds: dict[str, list[str]], name: str) -> None:
        self.dice, self._holds, self._name = dice, holds, name

    def request(self, number: int, sent: list[tuple[str, Message]]) -> tuple[str, Message]:
        """The next one: new, one that was sent before, or another with a request id of those."""
        dice = self.dice
        if sent and dice.random() < 0.08:
            return dice.choice(sent)
        methods, weights = list(METHODS), list(METHODS.values())
        (method,) = dice.choices(methods, weights)
        ids: dict[str, Any] = {
            "request_id": f"{self._name}-{number}",
            "account_id": dice.choice(ACCOUNTS),
        }
        used = [old for name, old in sent if name not in {"BatchDebit", "GetBalance"}]
        if used and dice.random() < 0.02:
            old = dice.choice(used)
            ids = {"request_id": old.request_id, "account_id": old.account_id}
        make: Callable[[dict[str, Any]], Message] = getattr(self, f"_{method.lower()}")
        return method, make(ids)

    def _grant(self, ids: dict[str, Any]) -> pb.GrantRequest:
        amount, priority = self.dice.randrange(1, 150), self.dice.randrange(-1, 3)
        return pb.GrantRequest(**ids, amount=amount, priority=priority)

    def _debit(self, ids: dict[str, Any]) -> pb.DebitRequest:
        return pb.DebitRequest(**ids, **self._price(), resource="file")

    def _batchdebit(self, ids: dict[str, Any]) -> pb.BatchDebitRequest:
        debits = []
        for number in range(self.dice.randrange(1, 5)):
            account_id = self.dice.choice(ACCOUNTS)
            own: dict[str, Any] = {
                "request_id": f"{ids['request_id']}.{number}",
                "account_id": account_id,
            }
            debits.append(self._debit(own))
        return pb.BatchDebitRequest(debits=debits, all_or_nothing=self.dice.random() < 0.5)

    def _reserve(self, ids: dict[str, Any]) -> pb.ReserveRequest:
        rule = self.dice.choice([pb.EXCESS_RULE_BALANCE, pb.EXCESS_RULE_SHORTFALL])
        time = live(HOLD_S)
        return pb.ReserveRequest(
            **ids, **self._price(), time_to_live=time, excess_rule=rule, resource="kept"
        )

    def _capture(self, ids: dict[str, Any]) -> pb.CaptureRequest:
        final = self.dice.random() < 0.4
        return pb.CaptureRequest(**ids, **self._price(), hold_id=self._hold(ids), final=final)

    def _release(self, ids: dict[str, Any]) -> pb.ReleaseRequest:
        return pb.ReleaseRequest(**ids, hold_id=self._hold(ids))

    def _getbalance(self, ids: dict[str, Any]) -> pb.GetBalanceRequest:
        return pb.GetBalanceRequest(account_id=ids["account_id"])

    def _price(self) -> dict[str, Any]:
        if self.dice.random() < 0.7:
            return {"amount": self.dice.randrange(40)}
        result = self.dice.choice(["HIT", "MISS"])
        meter = self.dice.choice(["download", "upload"])
        return {"metered": metered(meter, self.dice.randrange(12_000), result)}

    def _hold(self, ids: dict[str, Any]) -> str:
        return self.dice.choice(self._holds[ids["account_id"]][-4:])


class _Service:
    """A service process that is killed and started again; one of several on a store, perhaps."""

    def __init__(self, directory: Path, store: str, face: str) -> None:
        self.target = Target()
        self._directory = directory
        self._settings = {"store": store, "face": face}
        self._running = AsyncExitStack()
        self._process: ServiceProcess | None = None

    async def start(self) -> Stub:
        """Starts it, lets clients call it, and gives a stub."""
        self._directory.mkdir(exist_ok=True)
        enter = self._running.enter_async_context
        self._process = await enter(running("credits", self._settings, self._directory))
        stub = CreditServiceStub(await enter(connect(self._process.address, errors=ERRORS)))
        self.target.set(stub)
        return stub

    async def kill(self) -> None:
        """Kills it with whatever it is doing."""
        assert self._process is not None, "it was never started"
        self.target.clear()
        assert await self._process.stop(signal.SIGKILL) == -signal.SIGKILL
        await self.stop()

    async def stop(self) -> None:
        """Ends what is left of it."""
        await self._running.aclose()


async def record(
    directory: Path,
    seed: int,
    *,
    calls: int,
    kills: int = 0,
    faces: Sequence[str] = ("grpcio",),
    store: str = "",
) -> History:
    """A history of service processes of its own, of which one is killed so often meanwhile.

    Args:
        calls: of each client, at least; what was under way in a killed process is asked again.
        faces: of each process one; several need a ``store`` that takes several.
        store: its URL, unless it is one of LMDB in the directory.
    """
    store = store or f"lmdb://{directory / 'store'}"
    services = [_Service(directory / f"{n}", store, face) for n, face in enumerate(faces)]
    history, dice = History(), random.Random(seed)
    targets = [service.target for service in services]
    clients = asyncio.create_task(Clients(seed, history, *targets).run(calls))
    share = calls * CLIENTS // (kills + 1)
    try:
        stubs = [await service.start() for service in services]
        for kill in range(1, kills + 1):
            many = kill * share - dice.randrange(share // 2)
            while len(history.calls) < many and not clients.done():  # noqa: ASYNC110 (any moment will do)
                await asyncio.sleep(dice.random() * 0.005)
            assert not clients.done(), f"no call was left to be killed: {clients}"
            unlucky = dice.randrange(len(services))
            await services[unlucky].kill()
            stubs[unlucky] = await services[unlucky].start()
        await clients
        await history.read_ledgers(stubs[0], ACCOUNTS)
    finally:
        clients.cancel()
        await asyncio.gather(clients, return_exceptions=True)
        for service in services:
            await service.stop()
    return history
