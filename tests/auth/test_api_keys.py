"""API keys over the wire."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth.credential import Credential
from services.auth.errors import AccountStateConflictError, ApiKeyNotFoundError
from services.rpc.errors import InvalidArgumentError, PageTokenInvalidError
from services.store.port import ReadTransaction, Store
from tests.support.auth_service import ENVIRONMENT, AuthClient


async def whole_store(store: Store) -> bytes:
    """Everything that is kept, keys and values."""

    def run(tx: ReadTransaction) -> bytes:
        return b"".join(key + value for key, value in tx.range(b"", b"\xff"))

    return (await store.read(run)).result


async def test_a_key_is_made_as_it_was_asked_for(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    request = pb.CreateApiKeyRequest(
        request_id="key",
        account_id=account_id,
        display_name="the laptop's",
        scopes=[pb.SCOPE_READ, pb.SCOPE_DOWNLOAD],
    )
    request.expire_time.FromMicroseconds(mesh.clock.now_us + 1)
    made = await mesh.accounts.CreateApiKey(request)
    assert made.api_key.account_id == account_id
    assert made.api_key.display_name == "the laptop's"
    assert made.api_key.scopes == [pb.SCOPE_READ, pb.SCOPE_DOWNLOAD]
    assert made.api_key.create_time.ToMicroseconds() == mesh.clock.now_us
    assert made.api_key.expire_time == request.expire_time
    assert not made.api_key.HasField("revoke_time")
    credential = Credential.parse(made.credential)
    assert (credential.environment, credential.key_id) == (ENVIRONMENT, made.api_key.key_id)


async def test_a_key_without_an_expiry_never_expires(mesh: AuthClient) -> None:
    made = await mesh.key(await mesh.account())
    assert not made.api_key.HasField("expire_time")
    mesh.clock.advance_s(50 * 365 * 86400)
    await mesh.authorize(made.credential)


async def test_the_secret_is_in_no_other_answer_and_nowhere_in_the_store(
    mesh: AuthClient, store: Store
) -> None:
    account_id = await mesh.account()
    request = pb.CreateApiKeyRequest(
        request_id="key", account_id=account_id, scopes=[pb.SCOPE_DOWNLOAD]
    )
    made = await mesh.accounts.CreateApiKey(request)
    secret = Credential.parse(made.credential).secret
    again = await mesh.accounts.CreateApiKey(request)
    listed = await mesh.accounts.ListApiKeys(pb.ListApiKeysRequest(account_id=account_id))
    revoked = await mesh.revoke(made.api_key.key_id)
    assert again.replayed
    assert again.credential == ""
    for answer in (again, listed, revoked):
        assert secret.encode() not in answer.SerializeToString()
    kept = await whole_store(store)
    assert made.api_key.key_id.encode() in kept
    assert secret.encode() not in kept


async def test_two_keys_of_an_account_differ_and_both_work(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    keys = [await mesh.key(account_id) for _ in range(2)]
    assert keys[0].api_key.key_id != keys[1].api_key.key_id
    for key in keys:
        assert (await mesh.authorize(key.credential)).key_id == key.api_key.key_id


async def test_keys_are_listed_oldest_first_in_pages_revoked_ones_included(
    mesh: AuthClient,
) -> None:
    account_id, other = await mesh.account(), await mesh.account()
    made = []
    for _ in range(5):
        made.append((await mesh.key(account_id)).api_key.key_id)
        await mesh.key(other)
    await mesh.revoke(made[1])
    first = await mesh.accounts.ListApiKeys(
        pb.ListApiKeysRequest(account_id=account_id, page_size=3)
    )
    rest = await mesh.accounts.ListApiKeys(
        pb.ListApiKeysRequest(account_id=account_id, page_token=first.next_page_token)
    )
    assert [key.key_id for key in (*first.api_keys, *rest.api_keys)] == made
    assert rest.next_page_token == ""
    assert [key.HasField("revoke_time") for key in first.api_keys] == [False, True, False]
    with pytest.raises(PageTokenInvalidError):  # it belongs to another account's list
        await mesh.accounts.ListApiKeys(
            pb.ListApiKeysRequest(account_id=other, page_token=first.next_page_token)
        )
    with pytest.raises(PageTokenInvalidError):  # it belongs to another list
        await mesh.accounts.ListAccounts(pb.ListAccountsRequest(page_token=first.next_page_token))


async def test_a_key_that_has_expired_before_it_is_made_is_refused(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    for seconds in (-1, 0):
        with pytest.raises(InvalidArgumentError) as caught:
            await mesh.key(account_id, expires_in_s=seconds)
        assert set(caught.value.violations) == {"expire_time"}


@pytest.mark.parametrize(
    "time",
    [Timestamp(seconds=2**60), Timestamp(seconds=-(2**60)), Timestamp(seconds=1, nanos=-1)],
)
async def test_a_time_that_is_none_is_refused(mesh: AuthClient, time: Timestamp) -> None:
    request = pb.CreateApiKeyRequest(
        request_id="key",
        account_id=await mesh.account(),
        scopes=[pb.SCOPE_DOWNLOAD],
        expire_time=time,
    )
    with pytest.raises(InvalidArgumentError) as caught:
        await mesh.accounts.CreateApiKey(request)
    assert set(caught.value.violations) == {"expire_time"}


async def test_the_contract_s_rules_on_scopes_are_enforced(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    for scopes in ([], [0], [6], [pb.SCOPE_PIN, pb.SCOPE_PIN]):
        request = pb.CreateApiKeyRequest(request_id="key", account_id=account_id)
        request.scopes.extend(scopes)  # type: ignore[arg-type]  # not all are of the contract
        with pytest.raises(InvalidArgumentError):
            await mesh.accounts.CreateApiKey(request)


async def test_a_suspended_account_may_prepare_keys_and_a_closed_one_may_not(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_SUSPENDED)
    made = await mesh.key(account_id)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_ACTIVE)
    await mesh.authorize(made.credential)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED)
    with pytest.raises(AccountStateConflictError):
        await mesh.key(account_id)


async def test_revoking_twice_keeps_the_first_time(mesh: AuthClient) -> None:
    key_id = (await mesh.key(await mesh.account())).api_key.key_id
    first = await mesh.revoke(key_id)
    assert first.api_key.revoke_time.ToMicroseconds() == mesh.clock.now_us
    mesh.clock.advance_s(60)
    second = await mesh.revoke(key_id)
    assert second.api_key == first.api_key
    assert not second.replayed


async def test_an_absent_key_cannot_be_revoked(mesh: AuthClient) -> None:
    with pytest.raises(ApiKeyNotFoundError):
        await mesh.revoke("absent")
