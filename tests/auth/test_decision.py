"""The path of a decision: the same work, whatever is presented."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth import accounts, api_keys, identifiers
from services.auth.accounts import Account, AccountState
from services.auth.api_keys import ApiKey, KeyHash, Scope
from services.auth.credential import Credential
from services.auth.decision import Verifier, decide
from services.auth.errors import CredentialUnknownError
from services.auth.notices import NoticeKind
from services.auth.peppers import HASH_BYTES, Peppers
from services.store.port import Operation, ReadTransaction, Store

PEPPERS = Peppers({"1": b"one" * 16, "2": b"two" * 16}, "2")
VERIFIER = Verifier.over(PEPPERS, bytes(HASH_BYTES))


class Watched:
    """A transaction that notes what is asked of it."""

    def __init__(self, tx: ReadTransaction) -> None:
        self._tx = tx
        self.work: list[str] = []

    def get(self, key: bytes) -> bytes | None:
        self.work.append("get")
        return self._tx.get(key)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self.work.append("get_many")
        return self._tx.get_many(keys)

    def range(
        self, begin: bytes, end: bytes, *, limit: int = 0, reverse: bool = False
    ) -> list[tuple[bytes, bytes]]:
        self.work.append("range")
        return self._tx.range(begin, end, limit=limit, reverse=reverse)


def new_credential() -> Credential:
    return Credential("local", identifiers.new_key_id(), identifiers.new_secret())


async def keep(store: Store, credential: Credential, pepper_id: str) -> None:
    hashed = KeyHash(pepper_id, PEPPERS.hash(credential, pepper_id))
    key = ApiKey(credential.key_id, "acc_a", "", (Scope.DOWNLOAD,), 1, None, None, hashed)
    account = Account("acc_a", "", AccountState.ACTIVE, 1)
    await store.commit(Operation(lambda tx: accounts.create(tx, account)))
    await store.commit(Operation(lambda tx: api_keys.create(tx, key)))


def watched_refusal(
    watched: Watched, credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    compare = hmac.compare_digest

    def watched_compare(first: bytes, second: bytes) -> bool:
        watched.work.append(f"compare {len(first)} {len(second)}")
        return compare(first, second)

    with monkeypatch.context() as patch:
        patch.setattr(hmac, "compare_digest", watched_compare)
        with pytest.raises(CredentialUnknownError):
            decide(watched, VERIFIER, credential, Scope.DOWNLOAD, now_us=2)
    return watched.work


@pytest.mark.parametrize("pepper_id", ["1", "2", "a pepper that is gone"])
async def test_an_unknown_key_and_a_wrong_secret_take_the_same_path(
    store: Store, pepper_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = new_credential()
    await keep(store, known, pepper_id)
    wrong = Credential(known.environment, known.key_id, identifiers.new_secret())

    def work(credential: Credential) -> Callable[[ReadTransaction], list[str]]:
        return lambda tx: watched_refusal(Watched(tx), credential, monkeypatch)

    for credential in (wrong, new_credential()):
        done = (await store.read(work(credential))).result
        assert done == ["get", f"compare {HASH_BYTES} {HASH_BYTES}"]


async def test_a_hash_that_is_moved_to_another_key_fits_nothing_there(store: Store) -> None:
    mine, other = new_credential(), new_credential()
    forged = KeyHash("1", PEPPERS.hash(mine, "1"))
    key = ApiKey(other.key_id, "acc_a", "", (Scope.ADMIN,), 1, None, None, forged)
    account = Account("acc_a", "", AccountState.ACTIVE, 1)
    await store.commit(Operation(lambda tx: accounts.create(tx, account)))
    await store.commit(Operation(lambda tx: api_keys.create(tx, key)))
    for credential in (mine, Credential(mine.environment, other.key_id, mine.secret)):
        decision = partial(
            decide, verifier=VERIFIER, credential=credential, action=Scope.READ, now_us=2
        )
        with pytest.raises(CredentialUnknownError):
            await store.read(decision)


def test_the_domain_s_numbers_are_those_of_the_contract() -> None:
    for domain, contract in ((Scope, pb.Scope), (Scope, pb.Action)):
        names = {name.partition("_")[2]: number for name, number in contract.items() if number}
        assert {member.name: member.value for member in domain} == names
    states = {name.removeprefix("ACCOUNT_STATE_"): n for name, n in pb.AccountState.items() if n}
    assert {member.name: member.value for member in AccountState} == states
    kinds = {name.removeprefix("NOTICE_KIND_"): n for name, n in pb.NoticeKind.items() if n}
    assert {member.name: member.value for member in NoticeKind} == kinds


def test_keys_are_compared_by_the_standard_library_s_constant_time_comparison() -> None:
    source = (Path(__file__).parents[2] / "services/auth/peppers.py").read_text()
    assert "return hmac.compare_digest(" in source
