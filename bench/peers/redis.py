"""Debit over Redis: one Lua script, with ``appendfsync always``.

The script keeps the answer of each request id for a day and appends each debit to a stream.
"""

from __future__ import annotations

import asyncio
import os

from redis.asyncio import BlockingConnectionPool, Redis
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc

from bench.serving import serve_until
from services.credits.errors import InsufficientCreditError
from services.credits.settings import CreditSettings
from services.process.lifecycle import run

URL_VARIABLE, POOL_VARIABLE = "BENCH_REDIS_URL", "BENCH_POOL"
DEBIT = """
local earlier = redis.call('GET', KEYS[2])
if earlier then return tonumber(earlier) end
local available = tonumber(redis.call('GET', KEYS[1]) or '0')
local amount = tonumber(ARGV[1])
if available < amount then return -1 end
available = redis.call('DECRBY', KEYS[1], amount)
redis.call('SET', KEYS[2], available, 'EX', 86400)
redis.call('XADD', KEYS[3], '*', 'request', KEYS[2], 'amount', amount, 'available', available)
return available
"""


class RedisCredits(pb_grpc.CreditServiceServicer):
    """Grants and debits."""

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._debit = client.register_script(DEBIT)

    async def Grant(self, request: pb.GrantRequest, context: object) -> pb.GrantResponse:  # noqa: N802 (generated name)
        """Adds an account."""
        del context
        await self._client.set(f"account:{request.account_id}", request.amount, nx=True)
        return pb.GrantResponse()

    async def Debit(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:  # noqa: N802 (generated name)
        """Takes credit."""
        del context
        name, amount = request.account_id, request.amount
        keys = [f"account:{name}", f"request:{request.request_id}", f"entries:{name}"]
        available = await self._debit(keys=keys, args=[amount])
        if available < 0:
            raise InsufficientCreditError
        balance = pb.Balance(account_id=name, currency="credit", available=available)
        return pb.DebitResponse(amount=amount, balance=balance)


async def serve(settings: CreditSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    size = int(os.environ[POOL_VARIABLE])
    pool = BlockingConnectionPool.from_url(os.environ[URL_VARIABLE], max_connections=size)
    async with Redis(connection_pool=pool) as client:
        servicer = RedisCredits(client)  # type: ignore[abstract]  # two methods are enough
        await serve_until(servicer, settings, stop)


if __name__ == "__main__":
    run(CreditSettings, serve)
