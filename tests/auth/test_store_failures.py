"""What callers are told when the store fails, over the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb

from services.rpc.errors import (
    InternalError,
    OverloadedError,
    ServiceError,
    ShuttingDownError,
    StoreUnavailableError,
)
from services.store import errors
from services.store.port import Committed, Operation, ReadTransaction, Store, T
from tests.support.auth_service import AuthClient, Clock, running_auth_service

DETAIL = "disk /dev/sdb1 of host db-7"


class FailingStore:
    """A store that fails as it is told to."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.failure: Exception | None = None

    async def commit(self, operation: Operation[T]) -> Committed[T]:
        if self.failure is not None:
            raise self.failure
        return await self._store.commit(operation)

    async def read(
        self, run: Callable[[ReadTransaction], T], *, at_least_version: int = 0
    ) -> Committed[T]:
        if self.failure is not None:
            raise self.failure
        return await self._store.read(run, at_least_version=at_least_version)

    async def close(self) -> None:
        await self._store.close()


@pytest.mark.parametrize(
    ("failure", "answer"),
    [
        (errors.StoreUnavailableError(DETAIL), StoreUnavailableError),
        (errors.StoreOverloadedError(DETAIL), OverloadedError),
        (errors.StoreClosedError(DETAIL), ShuttingDownError),
        (errors.OperationTooLargeError(DETAIL), InternalError),
        (RuntimeError(DETAIL), InternalError),
    ],
)
async def test_a_failure_of_the_store_is_told_by_its_reason_alone(
    store: Store, clock: Clock, failure: Exception, answer: type[ServiceError]
) -> None:
    failing = FailingStore(store)
    async with running_auth_service(failing, clock) as mesh:
        key = await mesh.key(await mesh.account())
        failing.failure = failure
        await expect(mesh, key, answer)
        failing.failure = None
        await mesh.authorize(key.credential)


async def expect(
    mesh: AuthClient, key: pb.CreateApiKeyResponse, answer: type[ServiceError]
) -> None:
    account_id = key.api_key.account_id
    accounts = mesh.accounts
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: mesh.authorize(key.credential),
        mesh.account,
        lambda: mesh.key(account_id),
        lambda: mesh.revoke(key.api_key.key_id),
        lambda: mesh.set_state(account_id, pb.ACCOUNT_STATE_SUSPENDED),
        lambda: accounts.GetAccount(pb.GetAccountRequest(account_id=account_id)),
        lambda: accounts.ListAccounts(pb.ListAccountsRequest()),
        lambda: accounts.ListApiKeys(pb.ListApiKeysRequest(account_id=account_id)),
    ]
    for call in calls:
        with pytest.raises(ServiceError) as caught:
            await call()
        assert type(caught.value) is answer
        assert DETAIL not in str(caught.value)
        assert set(caught.value.metadata) <= {"incident_id"}
