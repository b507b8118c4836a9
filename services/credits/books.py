"""An account as its ledger entries make it, one after the other: what an audit compares with.

Plain numbers of what entries say, without a look at what else is stored. Closed holds are not
remembered, so that the books of a long ledger stay small.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from services.credits.account import DAY_US
from services.credits.names import entry_name
from services.credits.records import (
    DIGEST_BYTES,
    ENTRIES,
    MAX_AMOUNT,
    Entry,
    EntryKind,
    Usage,
    decode_entry,
    entry_digest,
)
from services.store.keys import pack_number
from services.store.records import RecordInvalidError

UNREADABLE = (RecordInvalidError, UnicodeDecodeError)
"""What reading a damaged record raises: also that its text is no text."""
UsageKey = tuple[int, str, int, str]
"""UTC day since the epoch, meter, cache result, currency."""


class DifferenceError(Exception):
    """What is stored is not what it must be. Never leaves the service as an error."""

    def __init__(
        self,
        account_id: str,
        field: str,
        expected: object,
        found: object,
        message: str,
        number: int = 0,
    ) -> None:
        """``number``: of the entry that is concerned, or 0: none alone."""
        super().__init__(message)
        self.account_id = account_id
        self.entry_id = entry_name(number) if number else ""
        self.field = field
        self.expected = str(expected)
        self.found = str(found)


@dataclass(slots=True)
class Sums:
    """A currency's credit as the entries make it."""

    granted: int = 0
    available: int = 0
    held: int = 0
    spent: int = 0
    expired: int = 0
    voided: int = 0
    overdraft_limit: int = 0


@dataclass(slots=True)
class HeldCredit:
    """A hold with credit as the entries make it."""

    currency: str
    remaining: int = 0
    amount: int | None = 0
    """None: not known any more, as nothing was held in between."""
    captured: int = 0


@dataclass(slots=True)
class Given:
    """A grant as the entries make it."""

    currency: str
    amount: int
    create_us: int
    voided: bool = False
    refills: int = 0
    refilled: int = 0


@dataclass(slots=True)
class Reversed:
    """How much of an entry was refunded."""

    currency: str
    amount: int = 0
    quantity: int = 0


@dataclass(slots=True)
class Books:
    """See the module."""

    account_id: str
    number: int = 0
    """Of the last entry that was applied."""
    digest: bytes = b""
    shadow: bool = False
    purses: dict[str, Sums] = field(default_factory=dict)
    holds: dict[int, HeldCredit] = field(default_factory=dict)
    """Those that have credit."""
    grants: dict[int, Given] = field(default_factory=dict)
    refunds: dict[int, Reversed] = field(default_factory=dict)
    """By the number of the entry that was refunded."""
    usage: dict[UsageKey, Usage] = field(default_factory=dict)
    _prefix: bytes = b""

    def __post_init__(self) -> None:
        self._prefix = ENTRIES.key(self.account_id)

    def key(self, number: int) -> bytes:
        """Where an entry stands."""
        return self._prefix + pack_number(number)

    def apply(self, key: bytes, value: bytes) -> None:
        """Takes in what stands under the next key; raises ``DifferenceError``."""
        number = self.number + 1
        if key != self.key(number):
            raise self.wrong("number", number, key[len(self._prefix) :].hex(), "is missing", number)
        digest = entry_digest(self.digest, key, value[:-DIGEST_BYTES])
        if value[-DIGEST_BYTES:] != digest:
            raise self.wrong(
                "digest",
                digest.hex(),
                value[-DIGEST_BYTES:].hex(),
                "is not what was written, or does not follow the entry before it",
                number,
            )
        try:
            entry = decode_entry(value)
        except UNREADABLE as error:
            raise self.wrong("record", "an entry", error, "cannot be read", number) from error
        self.number, self.digest = number, digest
        purse = self.purses.get(entry.currency)
        if purse is None:
            purse = self.purses[entry.currency] = Sums()
        self._move(number, entry, purse)
        if entry.available_after != purse.available:
            raise self.wrong(
                "available_after",
                purse.available,
                entry.available_after,
                "does not follow from the entries before it",
                number,
            )
        if entry.held_after != purse.held:
            raise self.wrong(
                "held_after",
                purse.held,
                entry.held_after,
                "does not follow from the entries before it",
                number,
            )
        if entry.metered is not None:
            self._meter(entry)

    def none_follows(self) -> DifferenceError:
        """The difference when an entry is missing behind the last one."""
        number = self.number + 1
        return self.wrong("number", number, "none", "is missing", number)

    def wrong(
        self, name: str, expected: object, found: object, what: str, number: int
    ) -> DifferenceError:
        """A difference at an entry."""
        message = f"entry {entry_name(number)} of {self.account_id}: {name} {what}"
        return DifferenceError(self.account_id, name, expected, found, message, number)

    def _move(self, number: int, entry: Entry, purse: Sums) -> None:
        kind, amount = entry.kind, entry.amount
        if amount < 0:
            raise self.wrong("amount", "0 or more", amount, "is negative", number)
        if kind == EntryKind.DEBIT:
            purse.available -= amount
            purse.spent += amount
        elif kind in _OF_HOLDS:
            self._move_held(number, entry, purse)
        elif kind in _OF_GRANTS:
            self._move_granted(number, entry, purse)
        elif kind == EntryKind.REFUND:
            purse.spent -= amount
            purse.available += amount
            self._refund(number, entry)
        elif kind == EntryKind.SET_TERMS:
            if amount:
                raise self.wrong("amount", 0, amount, "moves credit with terms", number)
            self._set_terms(entry.resource, purse)
        else:
            raise self.wrong("kind", "a kind of entry", kind, "is unknown", number)

    def _move_granted(self, number: int, entry: Entry, purse: Sums) -> None:
        kind, amount = entry.kind, entry.amount
        if kind == EntryKind.GRANT:
            if entry.grant != number:
                raise self.wrong("grant_id", number, entry.grant, "is not its own", number)
            self.grants[number] = Given(entry.currency, amount, entry.create_us)
        given = self.grants.get(entry.grant)
        if kind in {EntryKind.GRANT, EntryKind.REFILL_GRANT}:
            purse.granted += amount
            purse.available += amount
            if kind == EntryKind.REFILL_GRANT and given is not None:
                given.refills += 1
                given.refilled = number
        else:
            purse.available -= amount
            if kind == EntryKind.EXPIRE_GRANT:
                purse.expired += amount
            else:
                purse.voided += amount
                if given is not None:
                    given.voided = True
        if given is None or given.currency != entry.currency:
            raise self.wrong(
                "grant_id", "a grant before it", entry.grant, "is no grant of this currency", number
            )

    def _move_held(self, number: int, entry: Entry, purse: Sums) -> None:
        kind, amount = entry.kind, entry.amount
        if (entry.hold == number) != (kind == EntryKind.RESERVE) or not 0 < entry.hold <= number:
            raise self.wrong("hold_id", "a hold before it", entry.hold, "is no such hold", number)
        hold = self.holds.get(entry.hold)
        if hold is None:
            known = 0 if kind == EntryKind.RESERVE else None
            hold = HeldCredit(entry.currency, amount=known)
        elif hold.currency != entry.currency:
            raise self.wrong("currency", hold.currency, entry.currency, "is not its hold's", number)
        if kind in {EntryKind.RESERVE, EntryKind.EXTEND_HOLD}:
            purse.available -= amount
            purse.held += amount
            hold.remaining += amount
            if hold.amount is not None:
                hold.amount = min(MAX_AMOUNT, hold.amount + amount)
        elif kind == EntryKind.CAPTURE:
            from_hold = min(amount, hold.remaining)
            hold.remaining -= from_hold
            hold.captured = min(MAX_AMOUNT, hold.captured + amount)
            purse.held -= from_hold
            purse.available -= amount - from_hold
            purse.spent += amount
        else:
            if amount != hold.remaining:
                raise self.wrong("amount", hold.remaining, amount, "is not all of its hold", number)
            hold.remaining = 0
            purse.held -= amount
            purse.available += amount
        if hold.remaining:
            self.holds[entry.hold] = hold
        else:
            self.holds.pop(entry.hold, None)

    def _refund(self, number: int, entry: Entry) -> None:
        if not 0 < entry.refunded < number:
            raise self.wrong(
                "refunded_entry_id", "an entry before it", entry.refunded, "is no such", number
            )
        refund = self.refunds.setdefault(entry.refunded, Reversed(entry.currency))
        refund.amount += entry.amount
        if entry.metered is not None:
            refund.quantity += entry.metered.quantity

    def _set_terms(self, changes: str, purse: Sums) -> None:
        for change in changes.split():
            name, _, value = change.partition("=")
            if name == "shadow":
                self.shadow = value == "true"
            elif name == "overdraft_limit":
                purse.overdraft_limit = int(value)

    def _meter(self, entry: Entry) -> None:
        metered = entry.metered
        if metered is None or entry.kind not in _METERED:
            return
        day = entry.create_us // DAY_US
        key = day, metered.meter, metered.cache, entry.currency
        usage = self.usage.get(key)
        if usage is None:
            usage = self.usage[key] = Usage()
        if entry.kind == EntryKind.REFUND:
            usage.refunded_quantity = min(MAX_AMOUNT, usage.refunded_quantity + metered.quantity)
            usage.refunded_amount = min(MAX_AMOUNT, usage.refunded_amount + entry.amount)
            return
        usage.quantity += metered.quantity
        usage.amount = min(MAX_AMOUNT, usage.amount + entry.amount)
        usage.count = min(MAX_AMOUNT, usage.count + (entry.count or 1))
        usage.shortfall = min(MAX_AMOUNT, usage.shortfall + entry.shortfall)
        usage.free += entry.free


_OF_HOLDS = {EntryKind.RESERVE, EntryKind.EXTEND_HOLD, EntryKind.CAPTURE, EntryKind.RELEASE}
_OF_GRANTS = {
    EntryKind.GRANT,
    EntryKind.REFILL_GRANT,
    EntryKind.EXPIRE_GRANT,
    EntryKind.VOID_GRANT,
}
_METERED = {EntryKind.DEBIT, EntryKind.CAPTURE, EntryKind.REFUND}
