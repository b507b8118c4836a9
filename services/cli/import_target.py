"""The mesh as an import sees it: brings one row, once however often it is brought."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tollmesh.auth.v1 import auth_pb2 as pb
from tollmesh.client import AsyncCreditClient, TollmeshError
from tollmesh.client.requests import timestamp

from services.cli.import_rows import Row
from services.rpc.errors import ServiceError

if TYPE_CHECKING:
    from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceAsyncStub

T = TypeVar("T")
Count = Callable[[str, Row], None]
Problem = Callable[[str, Row, str], None]

_ATTEMPTS = 8
_CONFLICTS = {"REQUEST_ID_REUSED", "API_KEY_CONFLICT"}


class Target:
    """Where rows go. Request ids are made of the source's name and the row's own id."""

    def __init__(
        self,
        accounts: AccountServiceAsyncStub,
        credits: AsyncCreditClient | None,
        source: str,
        names: dict[str, str],
        keys_out: Path | None,
    ) -> None:
        """``credits``: None for a dry run. ``names``: of the file's accounts."""
        self._accounts = accounts
        self._credits = credits
        self._source = source
        self._names = names
        self._keys_out = keys_out
        self._made: dict[str, asyncio.Task[tuple[str, bool]]] = {}
        self._missing: dict[str, str] = {}

    async def bring(
        self, row: Row, count: Count, problem: Problem, advance: Callable[[], None]
    ) -> None:
        """Imports a row and says what became of it."""
        try:
            replayed = await self._bring(row)
        except (ServiceError, TollmeshError) as error:
            reason = error.reason if isinstance(error, TollmeshError) else error.reason_name()
            if reason in _CONFLICTS:
                message = "was imported with other content before; nothing was changed"
                problem("conflict", row, message)
            else:
                problem("failed", row, f"{error} ({reason})")
        else:
            count("already there" if replayed else "created", row)
        advance()

    async def missing_account(self, account: str) -> str:
        """Why an account that must exist cannot be used; empty when it can, or would be made."""
        if not account.startswith("acc_") or account in self._names:
            return ""
        if account not in self._missing:
            try:
                await self._accounts.GetAccount(pb.GetAccountRequest(account_id=account))
                self._missing[account] = ""
            except ServiceError as error:
                self._missing[account] = f"{account}: {error}"
        return self._missing[account]

    async def _bring(self, row: Row) -> bool:
        if row.type == "account":
            return (await self._account(row.id))[1]
        account_id = (await self._account(row.account))[0]
        if row.type == "api_key":
            return await self._key(row, account_id)
        assert self._credits is not None  # noqa: S101 (only a dry run has none, and brings nothing)
        answer = await self._credits.grant(
            account_id,
            row.amount,
            currency=row.currency,
            priority=row.priority,
            expire_time=row.expires,
            resource=row.resource,
            request_id=self._request_id("grant", row.id),
        )
        return answer.replayed

    async def _account(self, name: str) -> tuple[str, bool]:
        """The mesh's id of an account of the source, made on demand; and whether it was there."""
        if name.startswith("acc_") and name not in self._names:
            return name, True
        if name not in self._made:
            self._made[name] = asyncio.create_task(self._make_account(name))
        return await self._made[name]

    async def _make_account(self, name: str) -> tuple[str, bool]:
        request = pb.CreateAccountRequest(
            request_id=self._request_id("account", name),
            display_name=self._names.get(name, "") or name[:128],
        )
        made = await _patiently(lambda: self._accounts.CreateAccount(request))
        return made.account.account_id, made.replayed

    async def _key(self, row: Row, account_id: str) -> bool:
        request_id = self._request_id("api_key", row.id)
        scopes = [pb.Scope.Value(f"SCOPE_{scope.upper()}") for scope in row.scopes]
        if row.secret:
            imported = pb.ImportApiKeyRequest(
                request_id=request_id,
                account_id=account_id,
                display_name=row.name,
                scopes=scopes,
                expire_time=timestamp(row.expires),
                secret=row.secret,
            )
            return (await _patiently(lambda: self._accounts.ImportApiKey(imported))).replayed
        request = pb.CreateApiKeyRequest(
            request_id=request_id,
            account_id=account_id,
            display_name=row.name,
            scopes=scopes,
            expire_time=timestamp(row.expires),
        )
        made = await _patiently(lambda: self._accounts.CreateApiKey(request))
        if made.credential:
            self._keep(row, account_id, made)
        return made.replayed

    def _keep(self, row: Row, account_id: str, made: pb.CreateApiKeyResponse) -> None:
        assert self._keys_out is not None  # noqa: S101 (it is asked for before anything is made)
        line = {
            "id": row.id,
            "account": row.account,
            "account_id": account_id,
            "key_id": made.api_key.key_id,
            "credential": made.credential,
        }
        descriptor = os.open(self._keys_out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "a") as file:
            file.write(json.dumps(line) + "\n")

    def _request_id(self, kind: str, row_id: str) -> str:
        named = json.dumps([self._source, kind, row_id]).encode()
        return f"import-{blake2b(named, digest_size=24).hexdigest()}"


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call, with its own request id, while the service cannot be reached."""
    for attempt in range(_ATTEMPTS):
        try:
            return await call()
        except ServiceError as error:
            if error.code.name not in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}:
                raise
            if attempt == _ATTEMPTS - 1:
                raise
            await asyncio.sleep(min(2.0, 0.1 * 2**attempt))
    raise AssertionError("the last attempt returns or raises")
