"""One account inside one transaction: opened, changed by mutations, and saved.

The movements of credit between the parts of a purse are here, and the writing of entries and
usage; what a mutation means is in ``grants``, ``debits`` and ``holds``. A debit refuses before it
changes anything: of several in one operation, one that is refused leaves the account as it was.
"""

from __future__ import annotations

from functools import lru_cache

from services.credits import lots
from services.credits.errors import (
    AccountFullError,
    AmountOutOfRangeError,
    InsufficientCreditError,
)
from services.credits.lots import Shelf
from services.credits.records import (
    ACCOUNTS,
    AGENDA,
    ENTRIES,
    GRANTS,
    MAX_AMOUNT,
    NEVER_US,
    OVERDRAFT_LOT,
    USAGE,
    WALLET_MARK,
    Answer,
    EntryKind,
    GrantTerms,
    HoldView,
    Lot,
    Metered,
    Purse,
    Usage,
    Wallet,
    decode_grant,
    decode_usage,
    decode_wallet,
    entry_digest,
)
from services.store.keys import pack, pack_number
from services.store.port import ReadTransaction, Transaction
from services.store.records import encode_fields, sealed, sealed_record

DAY_US = 86_400_000_000
MAX_CURRENCIES = 64
"""In one account; so its wallet stays below the store's limit for a value."""
_KEYS = 4096
"""Keys of busy accounts that are kept at hand: each operation needs them several times."""

_usage_key = lru_cache(_KEYS)(USAGE.key)


def _name(account_id: str) -> bytes:
    """An account as a part of a key."""
    return pack((account_id,))


@lru_cache(_KEYS)
def wallet_key(account_id: str) -> bytes:
    """Where the wallet of an account stands."""
    return ENTRIES.prefix + _name(account_id) + WALLET_MARK


def load_wallet(tx: ReadTransaction, account_id: str) -> Wallet:
    """The wallet of an account; an empty one for an account that was never granted anything."""
    key = wallet_key(account_id)
    return wallet_in(key, tx.get(key))


def wallet_in(key: bytes, stored: bytes | None) -> Wallet:
    """The wallet in what stands under its key; an empty one when there is nothing."""
    return Wallet() if stored is None else decode_wallet(key, stored)


def usage_key(account_id: str, now_us: int, metered: Metered, currency: str) -> bytes:
    """Where the usage of a meter on the day of ``now_us`` is counted."""
    return _usage_key(account_id, now_us // DAY_US, metered.meter, metered.cache, currency)


class Account:
    """The working state of an account; ``save`` writes it."""

    __slots__ = (
        "_changed",
        "_entries",
        "_is_new",
        "_usage",
        "account_id",
        "now_us",
        "tx",
        "wallet",
    )

    def __init__(
        self, tx: Transaction, account_id: str, now_us: int, wallet: Wallet | None = None
    ) -> None:
        """``wallet``: the account's, if it was read already."""
        self.tx = tx
        self.account_id = account_id
        self.now_us = now_us
        self.wallet = wallet or load_wallet(tx, account_id)
        self._entries = wallet_key(account_id)[: -len(WALLET_MARK)]
        self._usage: dict[bytes, Usage] = {}
        self._changed = False
        self._is_new = not self.wallet.sequence

    def purse(self, currency: str) -> Purse:
        """The credit in a currency, to look at; zeros when there never was any."""
        return self.wallet.purses.get(currency) or Purse()

    def own_purse(self, currency: str) -> Purse:
        """The credit in a currency, to change; raises ``AccountFullError`` for the 65th."""
        purses = self.wallet.purses
        purse = purses.get(currency)
        if purse is None:
            if len(purses) >= MAX_CURRENCIES:
                raise AccountFullError.of("currencies", MAX_CURRENCIES)
            purse = purses[currency] = Purse()
        return purse

    def save(self) -> None:
        """Writes the wallet and the usage counters, if anything happened.

        Entries, holds, lots and the agenda are written as they change: an operation that did not
        raise must save.
        """
        if not self._changed:
            return
        key = wallet_key(self.account_id)
        self.tx.set(key, sealed_record(key, self.wallet))
        if self._is_new:
            key = ACCOUNTS.prefix + _name(self.account_id)
            self.tx.set(key, sealed(key, b""))
        for key, usage in self._usage.items():
            self.tx.set(key, sealed_record(key, usage))

    # movements of credit

    def payable(
        self, currency: str, amount: int, *, overdraft: bool = True, shortfall: bool = False
    ) -> int:
        """How much of ``amount`` is to be taken; ``amount`` less that is the shortfall.

        Less than ``amount`` only with ``shortfall`` or if the account is in shadow mode. Without
        ``overdraft`` the account's overdraft limit does not count. Raises
        ``InsufficientCreditError`` and ``AmountOutOfRangeError``.
        """
        purse = self.purse(currency)
        available = purse.available
        if amount <= available or not amount:
            return amount
        if shortfall or self.wallet.shadow:
            return max(0, available)
        if overdraft:
            available += purse.overdraft_limit
            if amount <= available:
                if purse.held + purse.spent + amount > MAX_AMOUNT:
                    raise AmountOutOfRangeError("What is held and spent would exceed 64 bits")
                return amount
        raise InsufficientCreditError.of(
            self.account_id, currency, needed=amount, available=available
        )

    def receive(self, currency: str, lot: Lot) -> None:
        """A grant or refill: adds to granted and available."""
        purse = self.own_purse(currency)
        if purse.granted + lot.remaining > MAX_AMOUNT:
            raise AmountOutOfRangeError("All grants together would exceed 64 bits")
        purse.granted += lot.remaining
        self.put(currency, lot)

    def spend(self, currency: str, amount: int) -> list[Lot]:
        """Available (what is not there: debt) to spent; gives where it came from."""
        taken = self._take(currency, amount)
        if taken:
            self.wallet.purses[currency].spent += amount
        return taken

    def hold(self, currency: str, amount: int) -> list[Lot]:
        """Available (what is not there: debt) to held; gives where it came from."""
        taken = self._take(currency, amount)
        if taken:
            self.wallet.purses[currency].held += amount
        return taken

    def spend_held(self, currency: str, amount: int) -> None:
        """Held to spent."""
        if amount:
            purse = self.wallet.purses[currency]
            purse.held -= amount
            purse.spent += amount

    def put(self, currency: str, lot: Lot) -> None:
        """Adds a lot to available: the caller says in the purse where it came from."""
        lots.put(self.tx, Shelf(self.account_id, currency), self.own_purse(currency), lot)
        if self.now_us < lot.expire_us < NEVER_US:
            self.expect(lot.expire_us)

    def withdraw(self, currency: str, lot: Lot) -> int:
        """Takes what is left at the place of a lot out of available: the caller says where to."""
        purse = self.wallet.purses.get(currency)
        if purse is None:
            return 0
        return lots.withdraw(self.tx, Shelf(self.account_id, currency), purse, lot)

    def expire_lots(self, currency: str, limit: int, until_us: int) -> int:
        """Available to expired, for at most ``limit`` lots that expire by then; says how many."""
        purse = self.wallet.purses.get(currency)
        if purse is None or not purse.head or purse.head[0].expire_us > until_us:
            return 0
        shelf = Shelf(self.account_id, currency)
        count = 0
        while count < limit:
            due = lots.take_due(self.tx, shelf, purse, until_us, limit=1)
            if not due:
                break
            count += 1
            purse.expired += due[0].remaining
            self.enter(EntryKind.EXPIRE_GRANT, currency, due[0].remaining, grant=due[0].number)
        return count

    def _take(self, currency: str, amount: int) -> list[Lot]:
        if not amount:
            return []
        return lots.take(
            self.tx, Shelf(self.account_id, currency), self.own_purse(currency), amount
        )

    # what is written besides

    def grant_terms(self, number: int) -> GrantTerms | None:
        """What a grant was given with; None for a number that is no grant's."""
        if number == OVERDRAFT_LOT:
            return None
        key = GRANTS.key(self.account_id, number)
        stored = self.tx.get(key)
        return None if stored is None else decode_grant(key, stored)

    def set_grant_terms(self, number: int, terms: GrantTerms) -> None:
        """Writes what a grant was given with, or what became of it."""
        key = GRANTS.key(self.account_id, number)
        self.tx.set(key, sealed_record(key, terms))

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
        shortfall: int = 0,
        free: int = 0,
        refunded: int = 0,
        sources: lots.Sources = (),
        count: int = 0,
    ) -> int:
        """Writes a ledger entry about what was just moved; gives its number.

        ``grant`` and ``sources`` as ``lots.sources`` gives them.
        """
        purse = self.purse(currency)
        fields: tuple[object, ...] = (
            int(kind),
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
        if shortfall or free or refunded or sources or count:
            fields += (shortfall, free, refunded, sources, count)
        return self.append_entry(fields)

    def append_entry(self, fields: tuple[object, ...]) -> int:
        """Writes an ``Entry`` of these fields (the last ones with a default may be left out)."""
        self._changed = True
        wallet = self.wallet
        wallet.sequence = number = wallet.sequence + 1
        key = self._entries + pack_number(number)
        encoded = encode_fields(fields)
        wallet.digest = digest = entry_digest(wallet.digest, key, encoded)
        self.tx.set(key, encoded + digest)
        return number

    def meter(
        self,
        metered: Metered,
        currency: str,
        amount: int,
        *,
        shortfall: int = 0,
        free: int = 0,
        count: int = 1,
    ) -> None:
        """Counts a debit or capture in today's usage; raises ``AmountOutOfRangeError``."""
        usage = self._today(metered, currency)
        if usage.quantity + metered.quantity > MAX_AMOUNT:
            raise AmountOutOfRangeError(f"Today's usage of {metered.meter} would exceed 64 bits")
        usage.quantity += metered.quantity
        usage.amount = min(MAX_AMOUNT, usage.amount + amount)
        usage.count = min(MAX_AMOUNT, usage.count + count)
        usage.shortfall = min(MAX_AMOUNT, usage.shortfall + shortfall)
        usage.free += free

    def unmeter(self, metered: Metered, currency: str, amount: int) -> None:
        """Counts a refund of ``metered.quantity`` and ``amount`` in today's usage."""
        usage = self._today(metered, currency)
        usage.refunded_quantity = min(MAX_AMOUNT, usage.refunded_quantity + metered.quantity)
        usage.refunded_amount = min(MAX_AMOUNT, usage.refunded_amount + amount)

    def usage_room(self, metered: Metered, currency: str) -> int:
        """How much more of a meter can be counted today."""
        return MAX_AMOUNT - self._today(metered, currency).quantity

    def counted(self, key: bytes) -> Usage:
        """The counters under a key of USAGE or ALLOWANCES, to change; ``save`` writes them."""
        usage = self._usage.get(key)
        if usage is None:
            stored = self.tx.get(key)
            usage = self._usage[key] = Usage() if stored is None else decode_usage(key, stored)
        return usage

    def count_holds(self, more: int) -> None:
        """Counts a hold that was opened (1) or closed (-1), which may be all that happens."""
        self._changed = True
        self.wallet.open_holds += more

    def expect(self, expire_us: int) -> None:
        """Has the account looked at when something of it is due."""
        if expire_us < self.wallet.agenda_us:
            self.reschedule(expire_us)

    def reschedule(self, agenda_us: int) -> None:
        """Moves the account in the agenda."""
        self._changed = True
        before_us = self.wallet.agenda_us
        if before_us != NEVER_US:
            self.tx.clear(AGENDA.key(before_us, self.account_id))
        if agenda_us != NEVER_US:
            key = AGENDA.key(agenda_us, self.account_id)
            self.tx.set(key, sealed(key, b""))
        self.wallet.agenda_us = agenda_us

    def answer(
        self,
        number: int,
        amount: int,
        currency: str,
        hold: HoldView | None = None,
        shortfall: int = 0,
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
            purse.voided,
            purse.overdraft_limit,
            shortfall,
        )

    def _today(self, metered: Metered, currency: str) -> Usage:
        return self.counted(usage_key(self.account_id, self.now_us, metered, currency))
