"""A service of several processes: its callers name them all, and each has its share."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack

from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError
from services.rpc.server import Server
from tests.support.echo_service import EchoServicer, Message, pb, pb_grpc

CALLS = 20


class Counting(EchoServicer):
    """Counts its calls."""

    def __init__(self, counts: Counter[str], name: str) -> None:
        super().__init__()
        self._counts = counts
        self._name = name

    async def Say(self, request: Message, context: object) -> Message:  # noqa: N802 (the contract's name)
        self._counts[self._name] += 1
        return await super().Say(request, context)


async def test_each_address_has_its_share_and_the_others_do_the_work_of_one_that_ended() -> None:
    counts: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                Server(listen="127.0.0.1:0", servicers=[Counting(counts, name)], drain_s=0.2)
            )
            for name in ("one", "other")
        ]
        target = "ipv4:" + ",".join(server.address for server in servers)
        stub = pb_grpc.EchoServiceStub(await stack.enter_async_context(connect(target)))
        while len(counts) < 2:  # both are connected
            await stub.Say(pb.SayRequest())
        counts.clear()
        for _ in range(CALLS):
            await stub.Say(pb.SayRequest())
        assert counts == {"one": CALLS // 2, "other": CALLS // 2}

        await servers[0].drain()
        counts.clear()
        for _ in range(CALLS):
            try:
                await stub.Say(pb.SayRequest())
            except DependencyUnavailableError:
                continue  # it was sent before the end of that server was heard of
        assert counts["one"] == 0
        assert counts["other"] >= CALLS - 1
