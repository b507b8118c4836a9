from __future__ import annotations

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth.errors import (
    ApiKeyConflictError,
    CredentialMalformedError,
    CredentialRevokedError,
)
from services.rpc.errors import InvalidArgumentError, RequestIdReusedError
from services.store.port import Store
from tests.support.auth_service import PEPPERS, AuthClient, Clock, running_auth_service

SECRET = "0123-an-old-key-of-another-system"


def _request(client: AuthClient, account: str, secret: str = SECRET) -> pb.ImportApiKeyRequest:
    return pb.ImportApiKeyRequest(
        request_id=client.request_id(),
        account_id=account,
        scopes=[pb.SCOPE_DOWNLOAD],
        secret=secret,
    )


async def test_an_imported_key_works_until_it_is_revoked(mesh: AuthClient) -> None:
    account = await mesh.account()
    with pytest.raises(CredentialMalformedError):
        await mesh.authorize(SECRET)
    key = (await mesh.accounts.ImportApiKey(_request(mesh, account))).api_key
    decided = await mesh.authorize(SECRET)
    assert (decided.account_id, decided.key_id) == (account, key.key_id)
    with pytest.raises(CredentialMalformedError):
        await mesh.authorize(SECRET + "x")
    await mesh.revoke(key.key_id)
    with pytest.raises(CredentialRevokedError):
        await mesh.authorize(SECRET)


async def test_the_same_import_again_gives_the_same_key(mesh: AuthClient) -> None:
    account = await mesh.account()
    request = _request(mesh, account)
    first = await mesh.accounts.ImportApiKey(request)
    again = await mesh.accounts.ImportApiKey(request)
    other_id = await mesh.accounts.ImportApiKey(_request(mesh, account))
    assert [one.replayed for one in (first, again, other_id)] == [False, True, True]
    assert len({one.api_key.key_id for one in (first, again, other_id)}) == 1
    listed = await mesh.accounts.ListApiKeys(pb.ListApiKeysRequest(account_id=account))
    assert len(listed.api_keys) == 1


async def test_another_secret_or_owner_is_refused(mesh: AuthClient) -> None:
    account = await mesh.account()
    request = _request(mesh, account)
    await mesh.accounts.ImportApiKey(request)
    request.secret = "another-secret-of-that-system"
    with pytest.raises(RequestIdReusedError):
        await mesh.accounts.ImportApiKey(request)
    with pytest.raises(ApiKeyConflictError):
        await mesh.accounts.ImportApiKey(_request(mesh, await mesh.account()))


@pytest.mark.parametrize(
    "secret", ["short", "with a space in it", "x" * 257, "tm_local_but-not-one-of-ours"]
)
async def test_what_is_no_secret_is_refused(mesh: AuthClient, secret: str) -> None:
    with pytest.raises(InvalidArgumentError):
        await mesh.accounts.ImportApiKey(_request(mesh, await mesh.account(), secret))


async def test_a_pepper_may_be_replaced(store: Store, clock: Clock) -> None:
    both = {**PEPPERS, "2": b"another pepper of more than thirty-two bytes"}
    async with running_auth_service(store, clock) as client:
        account = await client.account()
        request = _request(client, account)
        await client.accounts.ImportApiKey(request)
    async with running_auth_service(store, clock, peppers=both, current_pepper="2") as client:
        assert (await client.accounts.ImportApiKey(request)).replayed
        assert (await client.authorize(SECRET)).account_id == account
    only = {"2": both["2"]}
    async with running_auth_service(store, clock, peppers=only, current_pepper="2") as client:
        assert (await client.authorize(SECRET)).account_id == account
