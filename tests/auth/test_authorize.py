"""Decisions over the wire: every reason, and the order in which they are given."""

from __future__ import annotations

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth import identifiers
from services.auth.credential import Credential
from services.auth.errors import (
    AccountClosedError,
    AccountSuspendedError,
    CredentialExpiredError,
    CredentialMalformedError,
    CredentialMissingError,
    CredentialRevokedError,
    CredentialUnknownError,
    ScopeMissingError,
)
from services.rpc.errors import InvalidArgumentError, ServiceError
from services.store.port import Store
from tests.support.auth_service import (
    ENVIRONMENT,
    TERMS,
    AuthClient,
    Clock,
    running_auth_service,
)

ACTIONS = {
    pb.SCOPE_DOWNLOAD: pb.ACTION_DOWNLOAD,
    pb.SCOPE_UPLOAD: pb.ACTION_UPLOAD,
    pb.SCOPE_PIN: pb.ACTION_PIN,
    pb.SCOPE_READ: pb.ACTION_READ,
    pb.SCOPE_ADMIN: pb.ACTION_ADMIN,
}


def with_another_secret(text: str) -> str:
    credential = Credential.parse(text)
    return Credential(credential.environment, credential.key_id, identifiers.new_secret()).reveal()


def with_another_key_id(text: str) -> str:
    credential = Credential.parse(text)
    return Credential(credential.environment, identifiers.new_key_id(), credential.secret).reveal()


async def refusal(mesh: AuthClient, credential: str) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await mesh.authorize(credential)
    return caught.value


async def test_who_may_is_told_what_the_edge_needs(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    key = await mesh.key(account_id, pb.SCOPE_DOWNLOAD, pb.SCOPE_READ)
    answer = await mesh.authorize(key.credential)
    assert answer.account_id == account_id
    assert answer.key_id == key.api_key.key_id
    assert answer.scopes == [pb.SCOPE_DOWNLOAD, pb.SCOPE_READ]
    assert answer.limits.concurrent_requests == TERMS.concurrent_requests
    assert answer.cache_time_to_live.ToMicroseconds() == TERMS.cache_us
    assert not answer.notices


async def test_an_action_needs_its_scope_or_admin(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    for scope in ACTIONS:
        key = await mesh.key(account_id, scope)
        for needed, action in ACTIONS.items():
            if scope in (needed, pb.SCOPE_ADMIN):
                await mesh.authorize(key.credential, action)
                continue
            with pytest.raises(ScopeMissingError) as caught:
                await mesh.authorize(key.credential, action)
            name = pb.Scope.Name(needed).removeprefix("SCOPE_").lower()
            assert caught.value.metadata == {"scope": name}


async def test_no_credential_is_missing(mesh: AuthClient) -> None:
    with pytest.raises(CredentialMissingError):
        await mesh.authorize("")


async def test_a_mistyped_credential_is_malformed(mesh: AuthClient) -> None:
    credential = (await mesh.key(await mesh.account())).credential
    wrong = "0" if credential[20] != "0" else "1"
    with pytest.raises(CredentialMalformedError):
        await mesh.authorize(credential[:20] + wrong + credential[21:])
    with pytest.raises(CredentialMalformedError):
        await mesh.authorize("Bearer " + credential)


async def test_a_wrong_secret_and_an_unknown_key_cannot_be_told_apart(mesh: AuthClient) -> None:
    credential = (await mesh.key(await mesh.account())).credential
    refusals = [
        await refusal(mesh, with_another_secret(credential)),
        await refusal(mesh, with_another_key_id(credential)),
    ]
    for error in refusals:
        assert isinstance(error, CredentialUnknownError)
        assert (str(error), error.metadata) == (str(refusals[0]), {})


async def test_a_key_of_another_mesh_is_unknown(store: Store, clock: Clock) -> None:
    async with running_auth_service(store, clock) as mesh:
        credential = (await mesh.key(await mesh.account())).credential
    parsed = Credential.parse(credential)
    foreign = Credential("prod", parsed.key_id, parsed.secret).reveal()
    async with running_auth_service(store, clock) as mesh:
        with pytest.raises(CredentialUnknownError):
            await mesh.authorize(foreign)
        assert parsed.environment == ENVIRONMENT
        await mesh.authorize(credential)


async def test_a_key_works_until_it_expires(mesh: AuthClient) -> None:
    key = await mesh.key(await mesh.account(), expires_in_s=60)
    mesh.clock.advance_s(59.999999)
    await mesh.authorize(key.credential)
    mesh.clock.advance_s(0.000001)
    with pytest.raises(CredentialExpiredError) as caught:
        await mesh.authorize(key.credential)
    assert caught.value.metadata == {"expired_at": key.api_key.expire_time.ToJsonString()}


async def test_a_decision_may_be_reused_at_most_until_the_key_expires(mesh: AuthClient) -> None:
    key = await mesh.key(await mesh.account(), expires_in_s=60)
    cache_s = TERMS.cache_us / 1_000_000
    for elapsed_s, expected_s in ((0, cache_s), (55, cache_s), (2, 3), (2.5, 0.5)):
        mesh.clock.advance_s(elapsed_s)
        answer = await mesh.authorize(key.credential)
        assert answer.cache_time_to_live.ToMicroseconds() == expected_s * 1_000_000


async def test_a_revoked_key_is_refused_at_once_and_for_ever(mesh: AuthClient) -> None:
    key = await mesh.key(await mesh.account())
    await mesh.authorize(key.credential)
    revoked = await mesh.revoke(key.api_key.key_id)
    for _ in range(2):
        with pytest.raises(CredentialRevokedError) as caught:
            await mesh.authorize(key.credential)
        expected = {"revoked_at": revoked.api_key.revoke_time.ToJsonString()}
        assert caught.value.metadata == expected
        mesh.clock.advance_s(10 * 365 * 86400)


async def test_keys_of_a_suspended_account_pause(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    key = await mesh.key(account_id)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_SUSPENDED)
    with pytest.raises(AccountSuspendedError):
        await mesh.authorize(key.credential)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_ACTIVE)
    await mesh.authorize(key.credential)


async def test_keys_of_a_closed_account_are_refused(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    key = await mesh.key(account_id)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED)
    with pytest.raises(AccountClosedError):
        await mesh.authorize(key.credential)


async def test_only_who_has_the_secret_learns_what_became_of_a_key(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    key = await mesh.key(account_id, pb.SCOPE_READ, expires_in_s=60)
    stranger = with_another_secret(key.credential)
    # Each step adds a reason that stands before those of the steps before.
    assert isinstance(await refusal(mesh, key.credential), ScopeMissingError)
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_SUSPENDED)
    assert isinstance(await refusal(mesh, key.credential), AccountSuspendedError)
    mesh.clock.advance_s(60)
    assert isinstance(await refusal(mesh, key.credential), CredentialExpiredError)
    await mesh.revoke(key.api_key.key_id)
    assert isinstance(await refusal(mesh, key.credential), CredentialRevokedError)
    assert isinstance(await refusal(mesh, stranger), CredentialUnknownError)


async def test_an_action_that_is_none_is_refused_before_the_credential_is_looked_at(
    mesh: AuthClient,
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await mesh.authorize("", pb.ACTION_UNSPECIFIED)
    assert set(caught.value.violations) == {"action"}
    with pytest.raises(InvalidArgumentError):
        await mesh.authorize("x" * 513)
