"""Accounts: who holds keys. Active, suspended and active again, or closed for good.

Pure functions of a transaction. Stored: the record by account id, and an append-only list of the
ids in the order in which the accounts were made. Accounts are never removed.
"""

from __future__ import annotations

from enum import IntEnum

from services.auth.errors import AccountNotFoundError, AccountStateConflictError
from services.store.keys import Subspace
from services.store.pages import Listing, read_page
from services.store.port import ReadTransaction, Transaction
from services.store.records import Record, changed, decoder, encode

_RECORDS = Subspace("auth", "account")
_ORDER = Subspace("auth", "account-order")


class AccountState(IntEnum):
    """The life of an account; the numbers are the contract's."""

    ACTIVE = 1
    SUSPENDED = 2
    CLOSED = 3


class Account(Record, frozen=True):
    """An account, as it is stored."""

    account_id: str
    display_name: str
    state: AccountState
    create_time_us: int
    """Since 1970, UTC."""


_decode = decoder(Account)


def create(tx: Transaction, account: Account) -> None:
    """Adds an account whose id is new."""
    tx.set(_RECORDS.key(account.account_id), encode(account))
    tx.append(_ORDER.prefix, account.account_id.encode())


def get(tx: ReadTransaction, account_id: str) -> Account:
    """The account. Raises ``AccountNotFoundError``."""
    record = tx.get(_RECORDS.key(account_id))
    if record is None:
        raise AccountNotFoundError
    return _decode(record)


def set_state(tx: Transaction, account_id: str, state: AccountState) -> Account:
    """Puts an account into a state; one that is in it already is not changed.

    Raises ``AccountNotFoundError``, or ``AccountStateConflictError`` to leave ``CLOSED``.
    """
    account = get(tx, account_id)
    if account.state is state:
        return account
    if account.state is AccountState.CLOSED:
        raise AccountStateConflictError
    account = changed(account, state=state)
    tx.set(_RECORDS.key(account_id), encode(account))
    return account


def list_all(tx: ReadTransaction, *, size: int, token: str) -> tuple[list[Account], str]:
    """A page of all accounts, oldest first, and the next page's token ("": none is left).

    Raises ``services.store.errors.PageTokenInvalidError``.
    """
    entries, next_token = read_page(tx, Listing("accounts"), _ORDER.range(), size=size, token=token)
    records = tx.get_many([_RECORDS.key(account_id.decode()) for _, account_id in entries])
    return [_decode(record) for record in records if record is not None], next_token
