"""One account inside one transaction: opened, changed by mutations, and saved.

The movements of credit between the parts of a purse are here, and the writing of entries and
usage; what a mutation means is in ``grants``, ``debits`` and ``holds``. A debit refuses before it
changes anything: of several in one operation, one that is refused leaves the account as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from services.credits import lots
from services.credits.errors import AmountOutOfRangeError, InsufficientCreditError
from services.credits.lots import Shelf
from services.credits.records import (
    AGENDA,
    ENTRIES,
    MAX_AMOUNT,
    NEVER_US,
    USAGE,
    WALLETS,
    Answer,
    Entry,
    EntryKind,
    HoldView,
    Lot,
    Metered,
    Purse,
    Usage,
    Wallet,
    decode_usage,
    decode_wallet,
)
from services.store.port import ReadTransaction, Transaction
from services.store.records import changed, encode

DAY_US = 86_400_000_000
_KEYS = 4096
"""Keys of busy accounts that are kept at hand: each operation needs them several times."""

wallet_key = lru_cache(_KEYS)(WALLETS.key)
"""Where the wallet of an account stands."""
_usage_key = lru_cache(_KEYS)(USAGE.key)


def load_wallet(tx: ReadTransaction, account_id: str) -> Wallet:
    """The wallet of an account; an empty one for an account that was never granted anything."""
    stored = tx.get(wallet_key(account_id))
    return Wallet() if stored is None else decode_wallet(stored)


def usage_key(account_id: str, now_us: int, metered: Metered, currency: str) -> bytes:
    """Where the usage of a meter on the day of ``now_us`` is counted."""
    return _usage_key(account_id, now_us // DAY_US, metered.meter, metered.cache, currency)


class Account:
    """The working state of an account; ``save`` writes it."""

    __slots__ = (
        "_changed",
        "_usage",
        "account_id",
        "agenda_us",
        "holds_us",
        "now_us",
        "purses",
        "sequence",
        "tx",
    )

    def __init__(self, tx: Transaction, account_id: str, now_us: int) -> None:
        wallet = load_wallet(tx, account_id)
        self.tx = tx
        self.account_id = account_id
        self.now_us = now_us
        self.sequence = wallet.sequence
        self.agenda_us = wallet.agenda_us
        self.holds_us = wallet.holds_us
        self.purses = wallet.purses
        self._usage: dict[bytes, Usage] = {}
        self._changed = False

    def purse(self, currency: str) -> Purse:
        """The credit in a currency; zeros when there never was any."""
        return self.purses.get(currency) or Purse()

    def save(self) -> None:
        """Writes the wallet and the usage counters, if anything happened.

        Entries, holds, lots and the agenda are written as they change: an operation that did not
        raise must save.
        """
        if not self._changed:
            return
        wallet = Wallet(self.sequence, self.agenda_us, self.holds_us, self.purses)
        self.tx.set(wallet_key(self.account_id), encode(wallet))
        for key, usage in self._usage.items():
            self.tx.set(key, encode(usage))

    # movements of credit

    def receive(self, currency: str, lot: Lot) -> None:
        """A grant: adds to granted and available."""
        purse = self.purse(currency)
        if purse.granted + lot.remaining > MAX_AMOUNT:
            raise AmountOutOfRangeError("All grants together would exceed 64 bits")
        purse = changed(purse, granted=purse.granted + lot.remaining)
        self._put(currency, purse, lot)

    def require(self, currency: str, amount: int) -> None:
        """Raises ``InsufficientCreditError`` unless ``amount`` is available."""
        available = self.purse(currency).available
        if amount > available:
            raise InsufficientCreditError.of(
                self.account_id, currency, needed=amount, available=available
            )

    def spend(self, currency: str, amount: int) -> None:
        """Available, which must be enough, to spent."""
        if amount:
            purse, _ = self._take(currency, amount)
            self.purses[currency] = changed(purse, spent=purse.spent + amount)

    def hold(self, currency: str, amount: int) -> list[Lot]:
        """Available, which must be enough, to held; gives where it came from."""
        if not amount:
            return []
        purse, taken = self._take(currency, amount)
        self.purses[currency] = changed(purse, held=purse.held + amount)
        return taken

    def spend_held(self, currency: str, amount: int) -> None:
        """Held to spent."""
        if amount:
            purse = self.purses[currency]
            spent = changed(purse, held=purse.held - amount, spent=purse.spent + amount)
            self.purses[currency] = spent

    def unhold(self, currency: str, released: Sequence[Lot]) -> None:
        """Held back to available, each lot to its grant (of which the time may be over)."""
        for lot in released:
            purse = self.purses[currency]
            purse = changed(purse, held=purse.held - lot.remaining)
            self._put(currency, purse, lot)

    def expire_lots(self, currency: str, limit: int) -> int:
        """Available to expired, for at most ``limit`` lots whose time is over; says how many."""
        purse = self.purse(currency)
        if not purse.head or purse.head[0].expire_us > self.now_us:
            return 0
        shelf = Shelf(self.account_id, currency)
        purse, due = lots.take_due(self.tx, shelf, purse, self.now_us, limit)
        available = purse.available + sum(lot.remaining for lot in due)
        for lot in due:
            available -= lot.remaining
            expired = purse.expired + lot.remaining
            purse = changed(purse, available=available, expired=expired)
            self.purses[currency] = purse
            self.enter(EntryKind.EXPIRE_GRANT, currency, lot.remaining, grant=lot.number)
        return len(due)

    def _take(self, currency: str, amount: int) -> tuple[Purse, list[Lot]]:
        shelf = Shelf(self.account_id, currency)
        return lots.take(self.tx, shelf, self.purses[currency], amount)

    def _put(self, currency: str, purse: Purse, lot: Lot) -> None:
        shelf = Shelf(self.account_id, currency)
        self.purses[currency] = lots.put(self.tx, shelf, purse, lot)
        if lot.expire_us > self.now_us:
            self.expect(lot.expire_us)

    # what is written besides

    def enter(
        self,
        kind: EntryKind,
        currency: str,
        amount: int,
        *,
        request_id: str = "",
        hold: int = 0,
        grant: int = 0,
        metered: Metered | None = None,
        resource: str = "",
    ) -> int:
        """Writes a ledger entry about what was just moved; gives its number."""
        self._changed = True
        purse = self.purse(currency)
        self.sequence = number = self.sequence + 1
        entry = Entry(
            kind,
            currency,
            amount,
            purse.available,
            purse.held,
            self.now_us,
            request_id,
            hold,
            grant,
            metered,
            resource,
        )
        self.tx.set(ENTRIES.key(self.account_id, number), encode(entry))
        return number

    def meter(self, metered: Metered, currency: str, amount: int) -> None:
        """Counts a debit or capture in today's usage; raises ``AmountOutOfRangeError``."""
        key, usage = self._today(metered, currency)
        quantity = usage.quantity + metered.quantity
        if quantity > MAX_AMOUNT:
            raise AmountOutOfRangeError(f"Today's usage of {metered.meter} would exceed 64 bits")
        self._usage[key] = Usage(quantity, usage.amount + amount, usage.count + 1)

    def usage_room(self, metered: Metered, currency: str) -> int:
        """How much more of a meter can be counted today."""
        return MAX_AMOUNT - self._today(metered, currency)[1].quantity

    def expect(self, expire_us: int) -> None:
        """Has the account looked at when something of it expires."""
        if expire_us < self.agenda_us:
            self.reschedule(expire_us)

    def reschedule(self, agenda_us: int) -> None:
        """Moves the account in the agenda."""
        self._changed = True
        if self.agenda_us != NEVER_US:
            self.tx.clear(AGENDA.key(self.agenda_us, self.account_id))
        if agenda_us != NEVER_US:
            self.tx.set(AGENDA.key(agenda_us, self.account_id), b"")
        self.agenda_us = agenda_us

    def answer(
        self, number: int, amount: int, currency: str, hold: HoldView | None = None
    ) -> Answer:
        """What a mutation answers: what it did, and the balance after it."""
        purse = self.purse(currency)
        return Answer(
            number,
            amount,
            currency,
            purse.available,
            purse.held,
            purse.granted,
            purse.spent,
            purse.expired,
            hold,
        )

    def _today(self, metered: Metered, currency: str) -> tuple[bytes, Usage]:
        key = usage_key(self.account_id, self.now_us, metered, currency)
        usage = self._usage.get(key)
        if usage is None:
            stored = self.tx.get(key)
            usage = Usage() if stored is None else decode_usage(stored)
        return key, usage
