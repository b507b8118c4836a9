"""Where the mesh is, and calls to it.

A running local mesh describes itself in ``mesh.json`` of its home directory (``.tollmesh/``, or
TOLLMESH_HOME). Environment variables override it, so the same commands work against any mesh:
TOLLMESH_AUTH_TARGET, TOLLMESH_CREDITS_TARGET, TOLLMESH_EDGE_URL, TOLLMESH_KEY, TOLLMESH_ACCOUNT.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import uuid4

from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceStub
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.auth import errors as auth_errors
from services.cli.failure import MISUSED, CommandError
from services.credits import errors as credits_errors
from services.rpc.client import connect

if TYPE_CHECKING:
    from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceAsyncStub
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub
    from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceAsyncStub

T = TypeVar("T")


def home() -> Path:
    """The directory of the local mesh."""
    return Path(os.environ.get("TOLLMESH_HOME", ".tollmesh")).absolute()


def described(name: str) -> str:
    """What the environment, or else the running mesh's description, says of ``name``.

    Raises CommandError with what to set when neither says anything.
    """
    variable = f"TOLLMESH_{name.upper()}"
    if value := os.environ.get(variable):
        return value
    path = home() / "mesh.json"
    if path.exists():
        value = json.loads(path.read_text()).get(name)
        if value:
            return str(value)
    message = f"no mesh runs here (no {path}): start one with 'make up', or set {variable}"
    raise CommandError(message, MISUSED)


def new_request_id() -> str:
    """An idempotency key for one mutation."""
    return f"cli-{uuid4().hex}"


def with_accounts(use: Callable[[AccountServiceAsyncStub], Awaitable[T]]) -> T:
    """Runs ``use`` with a stub of the account service. Raises its errors."""

    async def call() -> T:
        async with connect(described("auth_target"), errors=auth_errors.ERRORS) as channel:
            return await use(AccountServiceStub(channel))

    return asyncio.run(call())


def with_credits(use: Callable[[CreditServiceAsyncStub], Awaitable[T]]) -> T:
    """Runs ``use`` with a stub of the credit service. Raises its errors."""

    async def call() -> T:
        async with connect(described("credits_target"), errors=credits_errors.ERRORS) as channel:
            return await use(CreditServiceStub(channel))

    return asyncio.run(call())


def with_ledger(use: Callable[[LedgerServiceAsyncStub], Awaitable[T]]) -> T:
    """Runs ``use`` with a stub of the ledger service. Raises its errors."""

    async def call() -> T:
        async with connect(described("credits_target"), errors=credits_errors.ERRORS) as channel:
            return await use(LedgerServiceStub(channel))

    return asyncio.run(call())
