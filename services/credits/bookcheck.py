"""An account's records, read in parts, and held against its books.

Each part is one consistent read with the wallet of that moment, so the books are first brought to
the wallet's last entry and then compared: the account may go on moving between the parts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from services.credits.account import wallet_key
from services.credits.books import UNREADABLE, Books, DifferenceError, Sums
from services.credits.lots import place
from services.credits.records import (
    AGENDA,
    ENTRIES,
    GRANTS,
    HOLD_EXPIRIES,
    HOLDS,
    LOTS,
    NEVER_US,
    OVERDRAFT_LOT,
    REFILLS,
    REFUNDS,
    USAGE,
    HoldState,
    Lot,
    Purse,
    Usage,
    Wallet,
    decode_entry,
    decode_grant,
    decode_hold,
    decode_lot,
    decode_refunded,
    decode_usage,
    decode_wallet,
)
from services.credits.refunds import REFUNDABLE
from services.store.keys import Subspace
from services.store.port import ReadTransaction

SECTIONS: tuple[Subspace, ...] = (LOTS, HOLDS, GRANTS, REFUNDS, USAGE)
"""What an account has besides its wallet and entries, in the order in which an audit reads it."""


class Part(NamedTuple):
    """A part of an account's records, and what must be known of the same moment."""

    wallet: Wallet | None
    behind: bytes
    """A key of an entry behind the wallet's last one; empty: there is none."""
    in_agenda: bool
    hold_due_us: int
    refill_due_us: int
    section: Subspace
    after: tuple[Any, ...]
    """The records behind this key's parts (without the account)."""
    last: bool
    """Nothing of the section comes behind it."""
    found: dict[tuple[Any, ...], bytes]
    entries: Mapping[int, bytes]
    """Those that records of holds and refunds are about."""

    @property
    def upto(self) -> tuple[Any, ...]:
        """Up to which record it goes, if it is not the last part."""
        return next(reversed(self.found), self.after)


def read_part(
    tx: ReadTransaction, *, account_id: str, section: Subspace, after: tuple[Any, ...], size: int
) -> Part:
    """Reads a part of at most ``size`` records; of lots, all of one currency."""
    stored = tx.get(wallet_key(account_id))
    try:
        wallet = None if stored is None else decode_wallet(stored)
    except UNREADABLE as error:
        raise _unreadable(account_id, "wallet", error) from error
    known = wallet or Wallet()
    begin, end = ENTRIES.range(account_id)
    begin = ENTRIES.key(account_id, known.sequence) + b"\x00" if known.sequence else begin
    behind = tx.range(begin, end, limit=1)
    begin, end = section.range(account_id)
    if after:
        begin = section.key(account_id, *after) + b"\x00"
    pairs = tx.range(begin, end, limit=1 if section is LOTS else size)
    last = not pairs if section is LOTS else len(pairs) < size
    if section is LOTS and pairs:
        currency = LOTS.parts(pairs[0][0])[1]
        pairs = tx.range(*LOTS.range(account_id, currency))
    found = {section.parts(key)[1:]: value for key, value in pairs}
    entries: dict[int, bytes] = {}
    if section in {HOLDS, REFUNDS}:
        numbers = [int(parts[0]) for parts in found]
        values = tx.get_many([ENTRIES.key(account_id, number) for number in numbers])
        entries = {
            number: value
            for number, value in zip(numbers, values, strict=True)
            if value is not None
        }
    agenda_us = known.agenda_us
    return Part(
        wallet,
        behind[0][0] if behind else b"",
        agenda_us == NEVER_US or tx.get(AGENDA.key(agenda_us, account_id)) is not None,
        _first_due_us(tx, HOLD_EXPIRIES, account_id),
        _first_due_us(tx, REFILLS, account_id),
        section,
        after,
        last,
        found,
        entries,
    )


def compare(books: Books, part: Part) -> None:
    """Holds a part against the books at its wallet's last entry; raises ``DifferenceError``."""
    wallet = part.wallet
    if wallet is None:
        message = f"{books.account_id} has records and no wallet"
        raise DifferenceError(books.account_id, "wallet", "a wallet", "none", message)
    check = _Check(books)
    if part.behind:
        number = int(ENTRIES.parts(part.behind)[1])
        what = "stands behind the last entry that the wallet knows"
        raise books.wrong("number", f"at most {wallet.sequence}", number, what, number)
    check.wallet(wallet, part)
    if part.section is LOTS:
        check.lots(wallet, part)
    else:
        checks: dict[Subspace, tuple[Callable[..., None], Collection[tuple[Any, ...]]]] = {
            HOLDS: (check.hold, [(number,) for number in books.holds]),
            GRANTS: (check.grant, [(number,) for number in books.grants]),
            REFUNDS: (check.refund, [(number,) for number in books.refunds]),
            USAGE: (check.usage, books.usage),
        }
        one, expected = checks[part.section]
        for key, value in part.found.items():
            try:
                one(key, value, part)
            except UNREADABLE as error:
                raise _unreadable(books.account_id, _NAMES[part.section], error) from error
        check.missing(part, expected)


class _Check:
    """Comparisons with the books of one account."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def wallet(self, wallet: Wallet, part: Part) -> None:
        """The wallet and its purses with the sums of all entries."""
        books = self._books
        self._same("digest", books.digest.hex(), wallet.digest.hex(), "wallet", books.number)
        self._same("shadow", books.shadow, wallet.shadow, "wallet")
        voids = any(given.voided for given in books.grants.values())
        self._same("voids", voids, wallet.voids, "wallet")
        for currency in sorted({*books.purses, *wallet.purses}):
            sums, purse = books.purses.get(currency, Sums()), wallet.purses.get(currency, Purse())
            for name in Sums.__slots__:
                self._same(name, getattr(sums, name), getattr(purse, name), f"wallet, {currency}")
            self._same("debt", max(0, -sums.available), purse.debt, f"wallet, {currency}")
            parts = purse.available + purse.held + purse.spent + purse.expired + purse.voided
            self._same("granted", parts, purse.granted, f"wallet, {currency}, sum of all parts")
        lots = [purse.head[0].expire_us for purse in wallet.purses.values() if purse.head]
        self._at_most("holds_us", wallet.holds_us, [part.hold_due_us])
        self._at_most("refills_us", wallet.refills_us, [part.refill_due_us])
        dues = [part.hold_due_us, part.refill_due_us, *lots]
        self._at_most("agenda_us", wallet.agenda_us, dues)
        self._same("agenda", True, part.in_agenda, "the wallet's place in the agenda")  # noqa: FBT003 (a value that is compared)

    def lots(self, wallet: Wallet, part: Part) -> None:
        """The lots of the part's purses with what is available."""
        tails: dict[str, list[Lot]] = {}
        for (currency, *at), value in part.found.items():
            try:
                lot = decode_lot(value)
            except UNREADABLE as error:
                raise _unreadable(self._books.account_id, "lot", error) from error
            self._same("lot", tuple(at), place(lot), f"lot, {currency}")
            tails.setdefault(currency, []).append(lot)
        within = {
            currency
            for currency in wallet.purses
            if part.after[:1] < (currency,) and (part.last or (currency,) <= part.upto[:1])
        }
        for currency in sorted({*within, *tails}):
            purse, tail = wallet.purses.get(currency, Purse()), tails.get(currency, [])
            where = f"lots, {currency}"
            self._same("tail", purse.tail, len(tail), where)
            lots = [*purse.head, *tail]
            total = sum(lot.remaining for lot in lots)
            self._same("remaining", max(0, purse.available), total, where)
            places = [place(lot) for lot in lots]
            self._same("order", sorted(set(places)), places, where)
            for lot in lots:
                self._lot(lot, currency, where)

    def hold(self, key: tuple[int], value: bytes, part: Part) -> None:
        """A hold with what its entries say of it."""
        (number,), hold = key, decode_hold(value)
        where = f"hold {number}"
        entry = part.entries.get(number)
        made = None if entry is None else decode_entry(entry)
        self._same("hold", number, None if made is None else made.hold, where, number)
        currency = None if made is None else made.currency
        self._same("currency", currency, hold.currency, where, number)
        held = self._books.holds.get(number)
        remaining = 0 if held is None else held.remaining
        self._same("remaining", remaining, hold.remaining, where, number)
        total = sum(lot.remaining for lot in hold.lots)
        self._same("lots", remaining, total, where, number)
        if held is not None:
            self._same("state", int(HoldState.OPEN), hold.state, where, number)
            if held.amount is not None:
                self._same("amount", held.amount, hold.amount, where, number)
                self._same("captured", held.captured, hold.captured, where, number)
        for lot in hold.lots:
            self._lot(lot, hold.currency, where)

    def grant(self, key: tuple[int], value: bytes, part: Part) -> None:
        """A grant with what its entries say of it."""
        del part
        (number,), terms = key, decode_grant(value)
        where, given = f"grant {number}", self._books.grants.get(number)
        if given is None:
            raise self._wrong("grant", "none", number, f"{where} has no entry", number)
        for name in ("currency", "amount", "create_us", "voided", "refills", "refilled"):
            self._same(name, getattr(given, name), getattr(terms, name), where, number)

    def refund(self, key: tuple[int], value: bytes, part: Part) -> None:
        """What was refunded of an entry with the refunds, and with the entry."""
        (number,), refunded = key, decode_refunded(value)
        where, known = f"refunds of entry {number}", self._books.refunds.get(number)
        self._same("amount", known.amount if known else 0, refunded.amount, where, number)
        self._same("quantity", known.quantity if known else 0, refunded.quantity, where, number)
        stored = part.entries.get(number)
        entry = None if stored is None else decode_entry(stored)
        if known is None or entry is None or entry.kind not in REFUNDABLE:
            raise self._wrong("refunded", "a debit or capture", number, f"{where}: none", number)
        self._same("currency", entry.currency, known.currency, where, number)
        if refunded.amount > entry.amount:
            message = f"{where} are more than it took"
            raise self._wrong("refunded", entry.amount, refunded.amount, message, number)

    def usage(self, key: tuple[Any, ...], value: bytes, part: Part) -> None:
        """A usage counter with the metered entries of its day."""
        del part
        counted, found = self._books.usage.get(key, Usage()), decode_usage(value)
        for name in _COUNTERS:
            where = "usage of day {}, meter {}, cache result {}, {}".format(*key)
            self._same(name, getattr(counted, name), getattr(found, name), where)

    def missing(self, part: Part, expected: Iterable[tuple[Any, ...]]) -> None:
        """Records within the part that must be there."""
        name = _NAMES[part.section]
        for key in expected:
            within = key > part.after and (part.last or key <= part.upto)
            if within and key not in part.found:
                message = f"{self._books.account_id}: {name} {key} is missing"
                number = 0 if part.section is USAGE else int(key[0])
                raise self._wrong(name, "a record", "none", message, number)

    def _lot(self, lot: Lot, currency: str, where: str) -> None:
        given = self._books.grants.get(lot.number)
        known = lot.number == OVERDRAFT_LOT or (given is not None and given.currency == currency)
        self._same("grant_id", True, known, f"{where}: the grant of lot {lot.number}")  # noqa: FBT003 (a value that is compared)
        if given is not None:
            self._same("create_us", given.create_us, lot.create_us, where)
        if lot.remaining <= 0:
            raise self._wrong("remaining", "above 0", lot.remaining, f"{where}: an empty lot")

    def _at_most(self, name: str, found: int, dues: Iterable[int]) -> None:
        due = min((*dues, NEVER_US))
        if found > due:
            message = f"wallet: {name} is behind what is due"
            raise self._wrong(name, f"at most {due}", found, message)

    def _same(
        self, name: str, expected: object, found: object, where: str, number: int = 0
    ) -> None:
        if expected != found:
            message = f"{self._books.account_id}, {where}: {name} is not what the entries say"
            raise self._wrong(name, expected, found, message, number)

    def _wrong(
        self, name: str, expected: object, found: object, message: str, number: int = 0
    ) -> DifferenceError:
        return DifferenceError(self._books.account_id, name, expected, found, message, number)


def _first_due_us(tx: ReadTransaction, subspace: Subspace, account_id: str) -> int:
    first = tx.range(*subspace.range(account_id), limit=1)
    return int(subspace.parts(first[0][0])[1]) if first else NEVER_US


def _unreadable(account_id: str, name: str, error: Exception) -> DifferenceError:
    message = f"{account_id}: the record of a {name} cannot be read"
    return DifferenceError(account_id, name, "a record", error, message)


_NAMES = {LOTS: "lot", HOLDS: "hold", GRANTS: "grant", REFUNDS: "refund", USAGE: "usage"}
_COUNTERS = Usage.__struct_fields__
