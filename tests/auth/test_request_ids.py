"""Every mutation is applied once for its request id, and repeats answer what the first call did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb
from tollmesh.auth.v1 import auth_pb2_grpc as pb_grpc

from services.auth.errors import AccountNotFoundError
from services.rpc.errors import RequestIdReusedError
from services.store.port import Operation
from tests.support.auth_service import AuthClient

HOUR_S = 3600

pytestmark = pytest.mark.parametrize("store", ["lmdb", "simulated"], indirect=True)


async def test_a_repeated_create_account_makes_one_account(mesh: AuthClient) -> None:
    request = pb.CreateAccountRequest(request_id="same", display_name="one")
    answers = await asyncio.gather(*(mesh.accounts.CreateAccount(request) for _ in range(20)))
    assert len({answer.account.account_id for answer in answers}) == 1
    assert sorted(answer.replayed for answer in answers) == [False] + [True] * 19
    listed = await mesh.accounts.ListAccounts(pb.ListAccountsRequest())
    assert len(listed.accounts) == 1


async def test_a_repeated_create_api_key_makes_one_key_and_shows_its_secret_once(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    request = pb.CreateApiKeyRequest(
        request_id="same", account_id=account_id, scopes=[pb.SCOPE_DOWNLOAD]
    )
    answers = await asyncio.gather(*(mesh.accounts.CreateApiKey(request) for _ in range(20)))
    assert len({answer.api_key.key_id for answer in answers}) == 1
    [shown] = [answer.credential for answer in answers if answer.credential]
    assert all(answer.replayed != bool(answer.credential) for answer in answers)
    await mesh.authorize(shown)
    listed = await mesh.accounts.ListApiKeys(pb.ListApiKeysRequest(account_id=account_id))
    assert len(listed.api_keys) == 1


async def test_a_replay_answers_what_was_answered_and_not_what_is(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    suspend = pb.SetAccountStateRequest(
        request_id="suspend", account_id=account_id, state=pb.ACCOUNT_STATE_SUSPENDED
    )
    first = await mesh.accounts.SetAccountState(suspend)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_ACTIVE)
    again = await mesh.accounts.SetAccountState(suspend)
    assert (again.account, again.replayed) == (first.account, True)
    found = await mesh.accounts.GetAccount(pb.GetAccountRequest(account_id=account_id))
    assert found.account.state == pb.ACCOUNT_STATE_ACTIVE


async def test_a_repeated_revocation_is_a_replay(mesh: AuthClient) -> None:
    key_id = (await mesh.key(await mesh.account())).api_key.key_id
    request = pb.RevokeApiKeyRequest(request_id="revoke", key_id=key_id)
    first = await mesh.accounts.RevokeApiKey(request)
    mesh.clock.advance_s(1)
    again = await mesh.accounts.RevokeApiKey(request)
    assert (first.replayed, again.replayed) == (False, True)
    assert again.api_key == first.api_key


async def test_a_key_is_replayed_after_its_expiry_and_its_account_s_closing(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    request = pb.CreateApiKeyRequest(
        request_id="key", account_id=account_id, scopes=[pb.SCOPE_DOWNLOAD]
    )
    request.expire_time.FromMicroseconds(mesh.clock.now_us + 1_000_000)
    first = await mesh.accounts.CreateApiKey(request)
    mesh.clock.advance_s(2)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED)
    again = await mesh.accounts.CreateApiKey(request)
    assert (again.api_key, again.replayed) == (first.api_key, True)


def one_use_of_each_method(
    accounts: pb_grpc.AccountServiceAsyncStub, request_id: str, account_id: str, key_id: str
) -> list[Callable[[], Awaitable[object]]]:
    """The four mutations, as requests that differ from each other, under one id."""
    name = pb.CreateAccountRequest(request_id=request_id, display_name=request_id)
    state = pb.SetAccountStateRequest(
        request_id=request_id, account_id=account_id, state=pb.ACCOUNT_STATE_ACTIVE
    )
    key = pb.CreateApiKeyRequest(
        request_id=request_id, account_id=account_id, scopes=[pb.SCOPE_PIN]
    )
    revoke = pb.RevokeApiKeyRequest(request_id=request_id, key_id=key_id)
    return [
        lambda: accounts.CreateAccount(name),
        lambda: accounts.SetAccountState(state),
        lambda: accounts.CreateApiKey(key),
        lambda: accounts.RevokeApiKey(revoke),
    ]


async def test_an_id_is_used_for_one_request_in_all_methods(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    key_id = (await mesh.key(account_id)).api_key.key_id
    for used_by in range(4):
        uses = one_use_of_each_method(mesh.accounts, f"id-{used_by}", account_id, key_id)
        await uses[used_by]()
        for method, use in enumerate(uses):
            if method == used_by:
                await use()
                continue
            with pytest.raises(RequestIdReusedError):
                await use()


async def test_another_content_under_a_used_id_is_refused_and_changes_nothing(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    request = pb.SetAccountStateRequest(
        request_id="same", account_id=account_id, state=pb.ACCOUNT_STATE_ACTIVE
    )
    await mesh.accounts.SetAccountState(request)
    request.state = pb.ACCOUNT_STATE_CLOSED
    with pytest.raises(RequestIdReusedError):
        await mesh.accounts.SetAccountState(request)
    found = await mesh.accounts.GetAccount(pb.GetAccountRequest(account_id=account_id))
    assert found.account.state == pb.ACCOUNT_STATE_ACTIVE


async def test_a_refused_request_may_be_repeated_and_then_succeed(mesh: AuthClient) -> None:
    request = pb.CreateApiKeyRequest(
        request_id="key", account_id="acc_absent", scopes=[pb.SCOPE_READ]
    )
    for _ in range(2):
        with pytest.raises(AccountNotFoundError):
            await mesh.accounts.CreateApiKey(request)
    request.account_id = await mesh.account()
    assert not (await mesh.accounts.CreateApiKey(request)).replayed


async def test_a_request_is_remembered_for_the_promised_time_and_then_swept(
    mesh: AuthClient,
) -> None:
    async def sweep() -> int:
        operation = Operation(lambda tx: mesh.records.sweep(tx, now_us=mesh.clock.now_us))
        return (await mesh.store.commit(operation)).result

    request = pb.CreateAccountRequest(request_id="same")
    first = await mesh.accounts.CreateAccount(request)
    mesh.clock.advance_s(24 * HOUR_S)
    assert await sweep() == 0
    assert (await mesh.accounts.CreateAccount(request)).account == first.account
    mesh.clock.advance_s(2)
    assert await sweep() == 1
    again = await mesh.accounts.CreateAccount(request)
    assert not again.replayed
    assert again.account.account_id != first.account.account_id
