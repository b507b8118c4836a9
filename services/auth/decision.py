"""The decision whether a credential may do an action.

The order of the checks lets nothing leak: until the secret has proved the key, every refusal reads
the same and takes the same path; only the key's holder learns that it was revoked or has expired,
or what became of the account.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from services.auth import accounts, api_keys
from services.auth.accounts import AccountState
from services.auth.api_keys import ApiKey, KeyHash, Scope
from services.auth.credential import Credential, ImportedSecret
from services.auth.errors import (
    AccountClosedError,
    AccountSuspendedError,
    CredentialExpiredError,
    CredentialMalformedError,
    CredentialRevokedError,
    CredentialUnknownError,
    ScopeMissingError,
)
from services.auth.peppers import HASH_BYTES, Peppers
from services.store.port import ReadTransaction
from services.store.records import encode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Proves credentials by their hashes."""

    peppers: Peppers
    stand_in: bytes
    """The record that an unknown key id is compared with: nothing has its hash."""

    @staticmethod
    def over(peppers: Peppers, random: bytes) -> Verifier:
        """``random``: HASH_BYTES that nobody knows."""
        if len(random) != HASH_BYTES:
            raise ValueError(f"a stand-in's hash has {HASH_BYTES} bytes, not {len(random)}")
        nothing = KeyHash(peppers.current, random)
        return Verifier(peppers, encode(ApiKey("", "", "", (), 0, None, None, nothing)))

    def prove(self, tx: ReadTransaction, credential: Credential | ImportedSecret) -> ApiKey:
        """The key that the credential proves. Raises ``CredentialUnknownError``.

        A secret that nobody imported is no key at all: ``CredentialMalformedError``.

        Whether the key id is unknown or the secret wrong: one read, one decoding, one hash and one
        comparison of equal length, and no branch but the last.
        """
        if isinstance(credential, ImportedSecret):
            digests = self.peppers.hashes_of_secret(credential.text)
            imported = api_keys.find_imported(tx, digests)
            if imported is None:
                raise CredentialMalformedError
            return imported
        key = api_keys.find(tx, credential.key_id, otherwise=self.stand_in)
        if not self.peppers.matches(credential, key.hash.pepper_id, key.hash.digest):
            raise CredentialUnknownError
        return key


def decide(
    tx: ReadTransaction,
    verifier: Verifier,
    credential: Credential | ImportedSecret,
    action: Scope,
    *,
    now_us: int,
) -> ApiKey:
    """The key, when the credential may do the action. Every refusal raises, in this order.

    ``CredentialUnknownError``, ``CredentialRevokedError``, ``CredentialExpiredError``,
    ``AccountClosedError`` or ``AccountSuspendedError``, ``ScopeMissingError``.
    """
    key = verifier.prove(tx, credential)
    _check_life(key, now_us)
    _check_account(accounts.get(tx, key.account_id).state)
    if action not in key.scopes and Scope.ADMIN not in key.scopes:
        scope = action.name.lower()
        raise ScopeMissingError(
            f"The API key lacks the scope {scope!r}.", metadata={"scope": scope}
        )
    return key


def _check_life(key: ApiKey, now_us: int) -> None:
    if key.revoke_time_us is not None:
        raise CredentialRevokedError(metadata={"revoked_at": _rfc3339(key.revoke_time_us)})
    if key.expire_time_us is not None and key.expire_time_us <= now_us:
        raise CredentialExpiredError(metadata={"expired_at": _rfc3339(key.expire_time_us)})


def _check_account(state: AccountState) -> None:
    if state is AccountState.CLOSED:
        raise AccountClosedError
    if state is AccountState.SUSPENDED:
        raise AccountSuspendedError


def _rfc3339(time_us: int) -> str:
    time = _EPOCH + timedelta(microseconds=time_us)
    return time.isoformat().replace("+00:00", "Z")
