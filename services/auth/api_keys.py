"""API keys: what an account's clients present. A key works until it is revoked or expires.

Pure functions of a transaction. Stored: the record by key id, with a keyed hash in place of the
secret, and for each account an append-only list of its keys' ids. Keys are never removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from services.auth import accounts
from services.auth.accounts import AccountState
from services.auth.errors import AccountStateConflictError, ApiKeyNotFoundError
from services.rpc.errors import InvalidArgumentError
from services.store.keys import Subspace
from services.store.pages import Listing, read_page
from services.store.port import ReadTransaction, Transaction
from services.store.records import Record, changed, decoder, encode

_RECORDS = Subspace("auth", "key")
_ORDER = Subspace("auth", "key-order")
_IMPORTED = Subspace("auth", "key-imported")


class Scope(IntEnum):
    """What a key may do; the numbers are the contract's, for scopes and for actions."""

    DOWNLOAD = 1
    UPLOAD = 2
    PIN = 3
    READ = 4
    ADMIN = 5
    """Every action."""


class KeyHash(Record, frozen=True):
    """What is kept of a secret."""

    pepper_id: str
    digest: bytes


class ApiKey(Record, frozen=True):
    """A key, as it is stored. Times are microseconds since 1970, UTC."""

    key_id: str
    account_id: str
    display_name: str
    scopes: tuple[Scope, ...]
    create_time_us: int
    expire_time_us: int | None
    """From this moment on the key is refused. None: never."""
    revoke_time_us: int | None
    """None: not revoked."""
    hash: KeyHash
    imported: bool = False
    """Its secret was given out by another system; see ``imported_keys``."""


_decode = decoder(ApiKey)


def create(tx: Transaction, key: ApiKey) -> None:
    """Adds a key whose id is new. A suspended account may prepare keys; a closed one may not.

    Raises ``AccountNotFoundError``, ``AccountStateConflictError`` when the account is closed, or
    ``InvalidArgumentError`` when the key has expired before it was made.
    """
    if key.expire_time_us is not None and key.expire_time_us <= key.create_time_us:
        raise InvalidArgumentError(violations={"expire_time": "must be in the future"})
    if accounts.get(tx, key.account_id).state is AccountState.CLOSED:
        raise AccountStateConflictError
    _put(tx, key)
    tx.append(_ORDER.key(key.account_id), key.key_id.encode())


def find(tx: ReadTransaction, key_id: str, *, otherwise: bytes) -> ApiKey:
    """The key, or that of a stand-in record: both take the same path."""
    return _decode(tx.get(_RECORDS.key(key_id)) or otherwise)


def get(tx: ReadTransaction, key_id: str) -> ApiKey:
    """The key. Raises ``ApiKeyNotFoundError``."""
    record = tx.get(_RECORDS.key(key_id))
    if record is None:
        raise ApiKeyNotFoundError
    return _decode(record)


def revoke(tx: Transaction, key_id: str, *, now_us: int) -> ApiKey:
    """Ends a key for good; one that is revoked already keeps its first revocation's time.

    Raises ``ApiKeyNotFoundError``.
    """
    key = get(tx, key_id)
    if key.revoke_time_us is None:
        key = changed(key, revoke_time_us=now_us)
        _put(tx, key)
    return key


def rehash(tx: Transaction, key_id: str, old: KeyHash, new: KeyHash) -> None:
    """Replaces a key's hash by that of another pepper, if it still is the old one.

    Raises ``ApiKeyNotFoundError``.
    """
    key = get(tx, key_id)
    if key.hash == old:
        if key.imported:
            tx.clear(_IMPORTED.key(old.digest))
            index_imported(tx, key_id, new)
        _put(tx, changed(key, hash=new))


def index_imported(tx: Transaction, key_id: str, secret: KeyHash) -> None:
    """Lets an imported key be found by the hash of its secret."""
    tx.set(_IMPORTED.key(secret.digest), key_id.encode())


def find_imported(tx: ReadTransaction, digests: Sequence[bytes]) -> ApiKey | None:
    """The imported key whose secret has one of these hashes (one a pepper)."""
    key_ids = tx.get_many([_IMPORTED.key(digest) for digest in digests])
    found = next((key_id for key_id in key_ids if key_id is not None), None)
    return None if found is None else get(tx, found.decode())


def list_of_account(
    tx: ReadTransaction, account_id: str, *, size: int, token: str
) -> tuple[list[ApiKey], str]:
    """A page of an account's keys, oldest first, and the next page's token ("": none is left).

    Raises ``AccountNotFoundError`` or ``services.store.errors.PageTokenInvalidError``.
    """
    accounts.get(tx, account_id)
    listing = Listing("api-keys", account_id)
    bounds = _ORDER.range(account_id)
    entries, next_token = read_page(tx, listing, bounds, size=size, token=token)
    records = tx.get_many([_RECORDS.key(key_id.decode()) for _, key_id in entries])
    return [_decode(record) for record in records if record is not None], next_token


def _put(tx: Transaction, key: ApiKey) -> None:
    tx.set(_RECORDS.key(key.key_id), encode(key))
