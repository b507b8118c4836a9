"""An account's records held against its books.

The books are first brought to the last entry of the wallet that was read together with the records:
so the account may go on moving between two parts of an audit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from services.credits.bookparts import NAMES, Moment, Part, Place, key_parts, plans
from services.credits.books import Books, DifferenceError, Sums
from services.credits.lots import place
from services.credits.records import (
    ENTRIES,
    GRANTS,
    HOLDS,
    LOTS,
    NEVER_US,
    OVERDRAFT_LOT,
    REFUNDS,
    USAGE,
    GrantTerms,
    Hold,
    HoldState,
    Lot,
    Purse,
    Refunded,
    Usage,
    Wallet,
    decode_entry,
)
from services.credits.refunds import REFUNDABLE
from services.store.keys import Subspace


def compare(books: Books, moment: Moment, parts: Iterable[Part]) -> None:
    """Holds parts of one moment against the books at its wallet's last entry.

    Raises ``DifferenceError``.
    """
    wallet = moment.wallet
    if wallet is None:
        raise no_wallet(books.account_id)
    check = _Check(books)
    if moment.behind:
        parts_of_key = key_parts(ENTRIES, moment.behind)
        number = parts_of_key[1] if len(parts_of_key) > 1 else 0
        number = number if isinstance(number, int) else 0
        what = "stands behind the last entry that the wallet knows"
        raise books.wrong("number", f"at most {wallet.sequence}", number, what, number)
    check.wallet(wallet, moment)
    for part in parts:
        if part.section is LOTS:
            check.lots(wallet, part)
        elif part.section in _CHECKS:
            one, expected_in = _CHECKS[part.section]
            expected = expected_in(books)
            if not part.found and not expected:
                continue
            for key, record in part.found.items():
                one(check, key, record, part)
            check.missing(part, expected)
            check.planned(part)


def no_wallet(account_id: str) -> DifferenceError:
    """The difference of an account that has records and no wallet."""
    message = f"{account_id} has records and no wallet"
    return DifferenceError(account_id, "wallet", "a wallet", "none", message)


class _Check:
    """Comparisons with the books of one account."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def wallet(self, wallet: Wallet, moment: Moment) -> None:
        """The wallet and its purses with the sums of all entries."""
        books = self._books
        self._same("digest", books.digest.hex(), wallet.digest.hex(), "wallet", books.number)
        self._same("shadow", books.shadow, wallet.shadow, "wallet")
        voids = any(given.voided for given in books.grants.values())
        self._same("voids", voids, wallet.voids, "wallet")
        for currency in sorted({*books.purses, *wallet.purses}):
            sums, purse = books.purses.get(currency, Sums()), wallet.purses.get(currency, Purse())
            where = f"wallet, {currency}"
            for name in Sums.__slots__:
                self._same(name, getattr(sums, name), getattr(purse, name), where)
            self._same("debt", max(0, -sums.available), purse.debt, where)
            parts = purse.available + purse.held + purse.spent + purse.expired + purse.voided
            self._same("granted", parts, purse.granted, f"{where}, sum of all parts")
        lots = [purse.head[0].expire_us for purse in wallet.purses.values() if purse.head]
        self._at_most("holds_us", wallet.holds_us, [moment.hold_due_us])
        self._at_most("refills_us", wallet.refills_us, [moment.refill_due_us])
        dues = [moment.hold_due_us, moment.refill_due_us, *lots]
        self._at_most("agenda_us", wallet.agenda_us, dues)
        self._same("agenda", True, moment.in_agenda, "the wallet's place in the agenda")  # noqa: FBT003 (a value that is compared)

    def lots(self, wallet: Wallet, part: Part) -> None:
        """The lots of the part's purses with what is available."""
        tails: dict[str, list[Lot]] = {}
        for (currency, *at), lot in part.found.items():
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

    def hold(self, key: tuple[int], hold: Hold, part: Part) -> None:
        """A hold with what its entries say of it."""
        (number,) = key
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

    def grant(self, key: tuple[int], terms: GrantTerms, part: Part) -> None:
        """A grant with what its entries say of it."""
        del part
        (number,) = key
        where, given = f"grant {number}", self._books.grants.get(number)
        if given is None:
            raise self._wrong("grant", "none", number, f"{where} has no entry", number)
        for name in ("currency", "amount", "create_us", "voided", "refills", "refilled"):
            self._same(name, getattr(given, name), getattr(terms, name), where, number)

    def refund(self, key: tuple[int], refunded: Refunded, part: Part) -> None:
        """What was refunded of an entry with the refunds, and with the entry."""
        (number,) = key
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

    def usage(self, key: Place, found: Usage, part: Part) -> None:
        """A usage counter with the metered entries of its day."""
        del part
        counted = self._books.usage.get(key, Usage())
        for name in _COUNTERS:
            where = "usage of day {}, meter {}, cache result {}, {}".format(*key)
            self._same(name, getattr(counted, name), getattr(found, name), where)

    def missing(self, part: Part, expected: Iterable[Place]) -> None:
        """Records within the part that must be there."""
        name = NAMES[part.section]
        for key in expected:
            within = key > part.after and (part.last or key <= part.upto)
            if within and key not in part.found:
                message = f"{self._books.account_id}: {name} {key} is missing"
                number = 0 if part.section is USAGE else int(key[0])
                raise self._wrong(name, "a record", "none", message, number)

    def planned(self, part: Part) -> None:
        """What must be looked at in time stands where it is looked for."""
        index, places = plans(part.section, part.found) or (part.section, [])
        for at in places:
            if at not in part.scheduled:
                name, number = NAMES[index], int(at[1])
                message = f"{self._books.account_id}: the {name} of {number} is missing"
                raise self._wrong(name, at[0], "none", message, number)

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


_CHECKS: Mapping[Subspace, tuple[Callable[..., None], Callable[[Books], Collection[Place]]]] = {
    HOLDS: (_Check.hold, lambda books: [(number,) for number in books.holds]),
    GRANTS: (_Check.grant, lambda books: [(number,) for number in books.grants]),
    REFUNDS: (_Check.refund, lambda books: [(number,) for number in books.refunds]),
    USAGE: (_Check.usage, lambda books: books.usage),
}
_COUNTERS = Usage.__struct_fields__
