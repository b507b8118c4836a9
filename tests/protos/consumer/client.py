"""What another team writes with the installed stubs alone: a typed client, sync and async."""

from __future__ import annotations

import asyncio
import sys

import grpc
import grpc.aio
from tollmesh.auth.v1.auth_pb2 import ACTION_DOWNLOAD, AuthorizeRequest, AuthorizeResponse
from tollmesh.auth.v1.auth_pb2_grpc import AuthServiceStub
from tollmesh.credits.v1.credits_pb2 import DebitRequest, DebitResponse
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub


def authorize(channel: grpc.Channel, key: str) -> AuthorizeResponse:
    """Asks whether a key may download."""
    request = AuthorizeRequest(credential=key, action=ACTION_DOWNLOAD)
    return AuthServiceStub(channel).Authorize(request, timeout=5)


async def debit(target: str, account_id: str, amount: int) -> DebitResponse:
    """Takes credit, with the async stubs."""
    async with grpc.aio.insecure_channel(target) as channel:
        request = DebitRequest(request_id="consumer-1", account_id=account_id, amount=amount)
        return await CreditServiceStub(channel).Debit(request, timeout=5)


def main(auth_target: str, credits_target: str, key: str) -> None:
    """Authorizes and debits; prints what was answered."""
    with grpc.insecure_channel(auth_target) as channel:
        account_id = authorize(channel, key).account_id
    answer = asyncio.run(debit(credits_target, account_id, 7))
    repeated = asyncio.run(debit(credits_target, account_id, 7))
    line = f"{account_id} {answer.amount} {answer.balance.available} {repeated.replayed}"
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
