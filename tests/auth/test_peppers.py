"""Peppers: what is kept is a keyed hash, and the key can be replaced while keys go on working."""

from __future__ import annotations

import pytest

from services.auth import api_keys, identifiers
from services.auth.credential import Credential
from services.auth.errors import CredentialRevokedError, CredentialUnknownError
from services.auth.peppers import HASH_BYTES, PepperChangedError, Peppers
from services.store.errors import StoreUnavailableError
from services.store.port import Committed, Operation, Store, T
from tests.support.auth_service import AuthClient, Clock, running_auth_service

OLD, NEW = b"the old pepper" * 3, b"the new pepper" * 3


def new_credential() -> Credential:
    return Credential("local", identifiers.new_key_id(), identifiers.new_secret())


async def pepper_of(store: Store, key_id: str) -> str:
    return (await store.read(lambda tx: api_keys.get(tx, key_id))).result.hash.pepper_id


def test_a_hash_depends_on_the_pepper_and_on_all_of_the_credential() -> None:
    peppers = Peppers({"old": OLD, "new": NEW}, "new")
    one = new_credential()
    others = [
        Credential("prod", one.key_id, one.secret),
        Credential(one.environment, identifiers.new_key_id(), one.secret),
        Credential(one.environment, one.key_id, identifiers.new_secret()),
    ]
    hashes = {peppers.hash(credential, "new") for credential in (one, *others)}
    hashes.add(peppers.hash(one, "old"))
    assert len(hashes) == 5
    assert {len(digest) for digest in hashes} == {HASH_BYTES}
    assert peppers.matches(one, "old", peppers.hash(one, "old"))
    assert not peppers.matches(one, "old", peppers.hash(one, "new"))


def test_the_current_pepper_must_be_one_of_the_peppers() -> None:
    with pytest.raises(ValueError, match="current pepper 'new'"):
        Peppers({"old": OLD}, "new")


async def test_keys_work_through_a_change_of_pepper_and_move_to_the_new_one(
    store: Store, clock: Clock
) -> None:
    async with running_auth_service(store, clock, peppers={"1": OLD}) as mesh:
        account_id = await mesh.account()
        used, unused = await mesh.key(account_id), await mesh.key(account_id)
    both = {"1": OLD, "2": NEW}
    async with running_auth_service(store, clock, peppers=both, current_pepper="2") as mesh:
        await mesh.authorize(used.credential)
        assert await pepper_of(store, used.api_key.key_id) == "2"
        assert await pepper_of(store, unused.api_key.key_id) == "1"
        made_since = await mesh.key(account_id)
    async with running_auth_service(store, clock, peppers={"2": NEW}, current_pepper="2") as mesh:
        for key in (used, made_since):
            await mesh.authorize(key.credential)
        with pytest.raises(CredentialUnknownError):  # its pepper was taken away too early
            await mesh.authorize(unused.credential)
    async with running_auth_service(store, clock, peppers=both, current_pepper="2") as mesh:
        await mesh.authorize(unused.credential)


async def test_a_refused_key_keeps_its_hash(store: Store, clock: Clock) -> None:
    async with running_auth_service(store, clock, peppers={"1": OLD}) as mesh:
        key = await mesh.key(await mesh.account())
        await mesh.revoke(key.api_key.key_id)
    both = {"1": OLD, "2": NEW}
    async with running_auth_service(store, clock, peppers=both, current_pepper="2") as mesh:
        with pytest.raises(CredentialRevokedError):
            await mesh.authorize(key.credential)
    assert await pepper_of(store, key.api_key.key_id) == "1"


async def test_renewing_a_hash_undoes_no_revocation(mesh: AuthClient) -> None:
    key = await mesh.key(await mesh.account())
    key_id = key.api_key.key_id
    before = (await mesh.store.read(lambda tx: api_keys.get(tx, key_id))).result
    await mesh.revoke(key_id)
    renewed = api_keys.KeyHash("2", bytes(HASH_BYTES))
    renew = Operation(lambda tx: api_keys.rehash(tx, key_id, before.hash, renewed))
    await mesh.store.commit(renew)
    after = (await mesh.store.read(lambda tx: api_keys.get(tx, key_id))).result
    assert after.revoke_time_us is not None
    assert after.hash == renewed
    await mesh.store.commit(renew)  # the old hash is gone: nothing to renew


class _ReadOnlyStore:
    """A store that cannot write for now."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read = store.read
        self.close = store.close

    async def commit(self, operation: Operation[T]) -> Committed[T]:
        if operation.group:
            raise StoreUnavailableError("the disk is full")
        return await self._store.commit(operation)


async def test_a_decision_does_not_depend_on_renewing_the_hash(store: Store, clock: Clock) -> None:
    async with running_auth_service(store, clock, peppers={"1": OLD}) as mesh:
        key = await mesh.key(await mesh.account())
    async with running_auth_service(
        _ReadOnlyStore(store), clock, peppers={"1": OLD, "2": NEW}, current_pepper="2"
    ) as mesh:
        await mesh.authorize(key.credential)
    assert await pepper_of(store, key.api_key.key_id) == "1"


async def test_another_secret_under_a_known_id_is_noticed(store: Store) -> None:
    await store.commit(Operation(Peppers({"1": OLD}, "1").enrol))
    with pytest.raises(PepperChangedError, match="pepper '1'"):
        await store.commit(Operation(Peppers({"1": NEW}, "1").enrol))
    missing = (await store.commit(Operation(Peppers({"2": NEW}, "2").enrol))).result
    assert missing == ["1"]
    assert (await store.commit(Operation(Peppers({"1": OLD, "2": NEW}, "2").enrol))).result == []
