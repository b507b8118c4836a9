"""Debit over PostgreSQL: a conditional UPDATE and an INSERT into the ledger, in one statement.

One round trip and one transaction each, synchronous commit and fsync on (the server's defaults).
The request id is the ledger's primary key, so a repetition fails instead of debiting twice.
"""

from __future__ import annotations

import asyncio
import os

import asyncpg
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc

from bench.serving import serve_until
from services.credits.errors import InsufficientCreditError
from services.credits.settings import CreditSettings
from services.process.lifecycle import run

URL_VARIABLE, POOL_VARIABLE = "BENCH_POSTGRES_URL", "BENCH_POOL"
SCHEMA = """
CREATE TABLE IF NOT EXISTS account (
    account_id text PRIMARY KEY, available bigint NOT NULL, spent bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS entry (
    request_id text PRIMARY KEY, account_id text NOT NULL, amount bigint NOT NULL,
    available_after bigint NOT NULL, create_time timestamptz NOT NULL DEFAULT now()
);
"""
GRANT = """
INSERT INTO account (account_id, available) VALUES ($1, $2) ON CONFLICT (account_id) DO NOTHING
"""
DEBIT = """
WITH taken AS (
    UPDATE account SET available = available - $2, spent = spent + $2
    WHERE account_id = $1 AND available >= $2 RETURNING available, spent
)
INSERT INTO entry (request_id, account_id, amount, available_after)
SELECT $3, $1, $2, available FROM taken RETURNING available_after
"""


class PostgresCredits(pb_grpc.CreditServiceServicer):
    """Grants and debits."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def Grant(self, request: pb.GrantRequest, context: object) -> pb.GrantResponse:  # noqa: N802 (generated name)
        """Adds an account."""
        del context
        await self._pool.execute(GRANT, request.account_id, request.amount)
        return pb.GrantResponse()

    async def Debit(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:  # noqa: N802 (generated name)
        """Takes credit."""
        del context
        name, amount = request.account_id, request.amount
        available = await self._pool.fetchval(DEBIT, name, amount, request.request_id)
        if available is None:
            raise InsufficientCreditError
        balance = pb.Balance(account_id=name, currency="credit", available=available)
        return pb.DebitResponse(amount=amount, balance=balance)


async def serve(settings: CreditSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set."""
    size = int(os.environ[POOL_VARIABLE])
    async with asyncpg.create_pool(os.environ[URL_VARIABLE], min_size=size, max_size=size) as pool:
        await pool.execute(SCHEMA)
        servicer = PostgresCredits(pool)  # type: ignore[abstract]  # two methods are enough
        await serve_until(servicer, settings, stop)


if __name__ == "__main__":
    run(CreditSettings, serve)
