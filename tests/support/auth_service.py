"""A real auth service in the test's own process, on a free port, with a clock that tests set."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from tollmesh.auth.v1 import auth_pb2 as pb
from tollmesh.auth.v1 import auth_pb2_grpc as pb_grpc

from services.auth.decision import Verifier
from services.auth.errors import ERRORS
from services.auth.peppers import HASH_BYTES, Peppers
from services.auth.servicer import AccountServicer, AuthServicer, Terms
from services.rpc.client import connect
from services.rpc.server import Server
from services.store.port import Operation, Store
from services.store.requests import RequestRecords
from services.store.translation import STORE_ERRORS

ENVIRONMENT = "test"
PEPPERS = {"1": b"a pepper of at least thirty-two bytes"}
TERMS = Terms(cache_us=5_000_000, concurrent_requests=7)


@dataclass(slots=True)
class Clock:
    """Time that stands still until a test moves it."""

    now_us: int = 1_800_000_000_000_000

    def __call__(self) -> int:
        return self.now_us

    def advance_s(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


@dataclass(slots=True)
class AuthClient:
    """Typed calls to the service, with what a test usually means as defaults."""

    channel: grpc.aio.Channel
    clock: Clock
    store: Store
    records: RequestRecords
    address: str = ""

    @property
    def auth(self) -> pb_grpc.AuthServiceAsyncStub:
        return pb_grpc.AuthServiceStub(self.channel)

    @property
    def accounts(self) -> pb_grpc.AccountServiceAsyncStub:
        return pb_grpc.AccountServiceStub(self.channel)

    def request_id(self) -> str:
        return uuid.uuid4().hex

    async def account(self, name: str = "") -> str:
        """Makes an account; gives its id."""
        request = pb.CreateAccountRequest(request_id=self.request_id(), display_name=name)
        return (await self.accounts.CreateAccount(request)).account.account_id

    async def key(
        self, account_id: str, *scopes: pb.Scope.ValueType, expires_in_s: float | None = None
    ) -> pb.CreateApiKeyResponse:
        """Makes a key; downloads only, unless told otherwise."""
        request = pb.CreateApiKeyRequest(
            request_id=self.request_id(),
            account_id=account_id,
            scopes=scopes or (pb.SCOPE_DOWNLOAD,),
        )
        if expires_in_s is not None:
            request.expire_time.FromMicroseconds(
                self.clock.now_us + round(expires_in_s * 1_000_000)
            )
        return await self.accounts.CreateApiKey(request)

    async def revoke(self, key_id: str) -> pb.RevokeApiKeyResponse:
        request = pb.RevokeApiKeyRequest(request_id=self.request_id(), key_id=key_id)
        return await self.accounts.RevokeApiKey(request)

    async def set_state(
        self, account_id: str, state: pb.AccountState.ValueType
    ) -> pb.SetAccountStateResponse:
        request = pb.SetAccountStateRequest(
            request_id=self.request_id(), account_id=account_id, state=state
        )
        return await self.accounts.SetAccountState(request)

    async def authorize(
        self, credential: str, action: pb.Action.ValueType = pb.ACTION_DOWNLOAD
    ) -> pb.AuthorizeResponse:
        return await self.auth.Authorize(pb.AuthorizeRequest(credential=credential, action=action))


@asynccontextmanager
async def running_auth_service(
    store: Store,
    clock: Clock,
    *,
    peppers: Mapping[str, bytes] = PEPPERS,
    current_pepper: str = "1",
    environment: str = ENVIRONMENT,
    keep_s: int = 24 * 3600,
    terms: Terms = TERMS,
) -> AsyncIterator[AuthClient]:
    """Serves over a store until the block ends."""
    peppered = Peppers(peppers, current_pepper)
    await store.commit(Operation(peppered.enrol))
    records = RequestRecords("auth", keep_s=keep_s)
    verifier = Verifier.over(peppered, bytes(HASH_BYTES))
    servicers = [
        AuthServicer(store, verifier, terms, clock),
        AccountServicer(store, records, peppered, environment, clock),
    ]
    server = Server(listen="127.0.0.1:0", servicers=servicers, translate=STORE_ERRORS)
    async with server, connect(server.address, errors=ERRORS) as channel:
        yield AuthClient(channel, clock, store, records, server.address)
