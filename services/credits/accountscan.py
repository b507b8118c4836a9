"""Many small accounts in one read of the store: the ranges of all sections side by side.

An account of a few records costs an audit several reads when it is read alone. Here one read takes
in as many accounts as the store's limit allows, in the order of their keys, and everything that
lies between them: records of an account without a wallet are found, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from services.credits.bookcheck import no_wallet
from services.credits.bookparts import (
    BEHIND,
    NAMES,
    SECTIONS,
    Moment,
    Pair,
    Part,
    Place,
    account_in,
    damaged,
    key_parts,
    records,
    wallet_of,
)
from services.credits.books import DifferenceError
from services.credits.records import (
    ACCOUNTS,
    AGENDA,
    ENTRIES,
    GRANTS,
    HOLD_EXPIRIES,
    HOLDS,
    NEVER_US,
    REFILLS,
    REFUNDS,
    WALLET_MARK,
    Wallet,
    is_wallet,
)
from services.store.errors import OperationTooLargeError
from services.store.keys import Subspace
from services.store.port import MAX_OPERATION_BYTES, ReadTransaction
from services.store.records import is_intact

PAIRS = 10_000
"""Of one section in one read; a read that finds as many is too large."""
_TARGET_BYTES = MAX_OPERATION_BYTES * 7 // 10


class Known(NamedTuple):
    """A wallet, and whose it is."""

    account_id: str
    packed: bytes
    wallet: Wallet
    in_agenda: bool


class Batch(NamedTuple):
    """Accounts that follow each other, as they were at one moment."""

    known: Sequence[Known]
    sections: Sequence[Sequence[Pair]]
    """The pairs of ENTRIES and of each of SECTIONS."""
    last: bool
    """No account comes behind them."""
    size_bytes: int

    def next_size(self) -> int:
        """Of how many accounts the next read should be, for about what one may hold."""
        count = len(self.known)
        return max(1, min(2 * count, count * _TARGET_BYTES // max(1, self.size_bytes)))


class Holdings(NamedTuple):
    """Everything of one account."""

    account_id: str
    packed: bytes
    """As a part of a key."""
    moment: Moment
    entries: Sequence[Pair]
    """Up to the wallet's last one."""
    parts: Sequence[Part]


def read_accounts(tx: ReadTransaction, *, after: bytes, size: int) -> Batch:
    """The next ``size`` accounts behind a packed one (empty: the first ones).

    Raises ``OperationTooLargeError`` and, for a damaged wallet, ``DifferenceError``.
    """
    begin, end = ACCOUNTS.range()
    if after:
        begin = ACCOUNTS.prefix + after + BEHIND
    accounts = tx.range(begin, end, limit=size)
    last = len(accounts) < size
    upto = b"" if last else accounts[-1][0][len(ACCOUNTS.prefix) :]
    sections = [_section(tx, section, after, upto) for section in (ENTRIES, *SECTIONS)]
    read = [accounts, *sections]
    size_bytes = sum([len(key) + len(value) for pairs in read for key, value in pairs])
    return Batch(_known(tx, accounts), sections, last, size_bytes)


def holdings(batch: Batch) -> Iterator[Holdings]:
    """The accounts of a batch in their order.

    Raises ``DifferenceError`` for a damaged record, and for records of no account.
    """
    shelves = [
        _Shelf(section, pairs)
        for section, pairs in zip((ENTRIES, *SECTIONS), batch.sections, strict=True)
    ]
    for known in batch.known:
        taken = [shelf.take(known.packed) for shelf in shelves]
        yield _holdings(known, taken[0], taken[1:])
    for shelf in shelves:
        shelf.take(b"\xff")


class _Shelf:
    """The pairs of a section, from which accounts take theirs one after the other."""

    __slots__ = ("_at", "_pairs", "_section")

    def __init__(self, section: Subspace, pairs: Sequence[Pair]) -> None:
        self._section = section
        self._pairs = pairs
        self._at = 0

    def take(self, packed: bytes) -> Sequence[Pair]:
        """An account's pairs; raises ``DifferenceError`` for one that comes before them."""
        first, pairs = self._at, self._pairs
        if first == len(pairs):
            return ()
        begin = self._section.prefix + packed
        if pairs[first][0] < begin:
            raise self._stray(*pairs[first])
        end, at = begin + BEHIND, first
        while at < len(pairs) and pairs[at][0] < end:
            at += 1
        self._at = at
        if at > first and pairs[at - 1][0] == begin + WALLET_MARK:
            at -= 1
        return pairs[first:at]

    def _stray(self, key: bytes, value: bytes) -> Exception:
        if self._section is not ENTRIES and not is_intact(key, value):
            return damaged(account_in(self._section, key), NAMES[self._section], key, value)
        account_id = str(key_parts(self._section, key)[0])
        if self._section is ENTRIES and is_wallet(key):
            message = f"{account_id} has a wallet and no place in the list of accounts"
            return DifferenceError(account_id, "account", "a record", "none", message)
        return no_wallet(account_id)


def _section(tx: ReadTransaction, section: Subspace, after: bytes, upto: bytes) -> list[Pair]:
    begin, end = section.range()
    begin = section.prefix + after + BEHIND if after else begin
    end = section.prefix + upto + BEHIND if upto else end
    pairs = tx.range(begin, end, limit=PAIRS)
    if len(pairs) == PAIRS:
        raise OperationTooLargeError(f"{PAIRS} records of a section at once")
    return pairs


def _known(tx: ReadTransaction, accounts: Sequence[Pair]) -> list[Known]:
    """The wallets, each with a look at the agenda."""
    found, places = [], []
    for key, value in accounts:
        if not is_intact(key, value):
            raise damaged(account_in(ACCOUNTS, key), "place in the list of accounts", key, value)
    names = [key[len(ACCOUNTS.prefix) :] for key, _ in accounts]
    keys = [ENTRIES.prefix + packed + WALLET_MARK for packed in names]
    for packed, key, stored in zip(names, keys, tx.get_many(keys), strict=True):
        account_id = str(key_parts(ENTRIES, key)[0])
        if stored is None:
            raise no_wallet(account_id)
        wallet = wallet_of(account_id, key, stored)
        due_us = wallet.agenda_us
        found.append(Known(account_id, packed, wallet, due_us == NEVER_US))
        if due_us != NEVER_US:
            places.append((len(found) - 1, AGENDA.key(due_us, account_id)))
    values = tx.get_many([key for _, key in places])
    for (index, key), stored in zip(places, values, strict=True):
        if stored is None:
            continue
        if not is_intact(key, stored):
            raise damaged(found[index].account_id, "place in the agenda", key, stored)
        found[index] = found[index]._replace(in_agenda=True)
    return found


def _holdings(known: Known, entries: Sequence[Pair], rest: Sequence[Sequence[Pair]]) -> Holdings:
    account_id, wallet = known.account_id, known.wallet
    found = {
        section: records(account_id, section, pairs) if pairs else {}
        for section, pairs in zip(SECTIONS, rest, strict=True)
    }
    numbered: dict[int, bytes] = {}
    if found[HOLDS] or found[REFUNDS]:
        numbered = dict(enumerate((value for _, value in entries), 1))
    parts = [
        Part(section, found[section], numbered, found.get(_PLANS.get(section, section), ()))
        for section in SECTIONS
    ]
    behind = entries[wallet.sequence][0] if len(entries) > wallet.sequence else b""
    dues = _first_due(found[HOLD_EXPIRIES]), _first_due(found[REFILLS])
    moment = Moment(wallet, behind, known.in_agenda, *dues)
    return Holdings(account_id, known.packed, moment, entries[: wallet.sequence], parts)


def _first_due(found: dict[Place, object]) -> int:
    return int(next(iter(found))[0]) if found else NEVER_US


_PLANS = {HOLDS: HOLD_EXPIRIES, GRANTS: REFILLS}
