"""What the credit service stores, and under which keys.

An account is one ``Wallet`` record, small however much happens: the credit of a few grants stands
in it, that of further grants, each hold, each ledger entry and each usage counter under keys of
their own. Times are microseconds since the Unix epoch. The enumerations have the numbers of the
contract (``tollmesh.credits.v1``).
"""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import Final

from services.store.keys import Subspace
from services.store.records import Record, WorkingRecord, decoder, sealed_decoder

MAX_AMOUNT: Final = 2**63 - 1
NEVER_US: Final = 2**63 - 1
"""The expiry of what does not expire: sorts behind every time."""


class CacheResult(IntEnum):
    """As in the contract; NONE is priced like MISS."""

    NONE = 0
    HIT = 1
    MISS = 2


class ExpiryPolicy(IntEnum):
    """As in the contract."""

    RELEASE = 1
    DEBIT_ESTIMATE = 2


class HoldState(IntEnum):
    """As in the contract."""

    OPEN = 1
    CAPTURED = 2
    RELEASED = 3
    EXPIRED = 4


class EntryKind(IntEnum):
    """As in the contract."""

    GRANT = 1
    DEBIT = 2
    RESERVE = 3
    CAPTURE = 4
    RELEASE = 5
    EXPIRE_GRANT = 6
    VOID_GRANT = 7
    REFUND = 8
    REFILL_GRANT = 9
    EXTEND_HOLD = 10
    SET_TERMS = 11


class ExcessRule(IntEnum):
    """As in the contract: what a capture above its hold does about the rest."""

    BALANCE = 1
    OVERDRAFT = 2
    SHORTFALL = 3


class RefillPeriod(IntEnum):
    """As in the contract."""

    DAY = 1
    WEEK = 2
    MONTH = 3
    YEAR = 4


OVERDRAFT_LOT: Final = 0
"""The number of the lot that stands for credit which no grant gave: what was owed when taken.

It never expires. Given back when nothing is owed any more, it is credit as that of a grant is.
"""
DIGEST_BYTES: Final = 8
"""The length of what ends the value of an entry: its digest, which covers the entry before."""


class Lot(WorkingRecord):
    """Credit of one grant, in a balance or under a hold; a purse owns its lots and alters them.

    The first three fields are its place in the spend order: what expires first, then the lower
    priority number, then the older grant.
    """

    expire_us: int
    priority: int
    number: int
    """Of the entry that recorded the grant; names the grant."""
    remaining: int
    amount: int
    """What the grant added."""
    create_us: int


class Purse(WorkingRecord):
    """An account's credit in one currency.

    granted = available + held + spent + expired + voided, and available = what the lots of head and
    tail have - debt.
    """

    granted: int = 0
    available: int = 0
    held: int = 0
    spent: int = 0
    expired: int = 0
    head: list[Lot] = []  # noqa: RUF012 (msgspec gives each record a list of its own)
    """What is spent first."""
    tail: int = 0
    """How many further lots stand under keys of their own, all behind those of ``head``."""
    voided: int = 0
    debt: int = 0
    """What is owed; next to a debt there are no lots: credit that comes in pays it first."""
    overdraft_limit: int = 0
    """How large ``debt`` may become."""


class Wallet(WorkingRecord):
    """An account."""

    sequence: int = 0
    """The number of its latest ledger entry."""
    agenda_us: int = NEVER_US
    """Where it stands in the agenda: nothing of it expires earlier."""
    holds_us: int = NEVER_US
    """No open hold expires earlier."""
    purses: dict[str, Purse] = {}  # noqa: RUF012 (msgspec gives each record a dict of its own)
    shadow: bool = False
    """Nothing is refused for want of credit."""
    voids: bool = False
    """A grant of it was voided: credit of that grant that comes back must be voided, too."""
    refills_us: int = NEVER_US
    """No recurring grant is refilled earlier."""
    digest: bytes = b""
    """Of the latest entry; each entry's digest covers the one before."""
    open_holds: int = 0
    """How many holds and leases are open."""


class GrantTerms(Record, frozen=True):
    """What a grant was given with, and what becomes of it."""

    currency: str
    amount: int
    priority: int
    expire_us: int
    """Of a recurring grant: when the present period's credit expires."""
    create_us: int
    voided: bool = False
    period: int = 0
    """A ``RefillPeriod``, or 0: not recurring."""
    end_us: int = NEVER_US
    """No refill from then on."""
    max_rollover: int = 0
    refills: int = 0
    """How often it was refilled: the next one is due this many and one periods after create_us."""
    next_refill_us: int = NEVER_US
    refilled: int = 0
    """The entry that refilled it last: what was spent before is of an earlier period."""
    added: int = 0
    """What the present period began with, once it was refilled; 0: ``amount``."""


class Metered(Record, frozen=True):
    """A quantity of a meter."""

    meter: str
    quantity: int
    cache: int


class Hold(Record, frozen=True):
    """Credit set aside."""

    currency: str
    amount: int
    captured: int
    remaining: int
    state: int
    expire_us: int
    policy: int
    resource: str
    estimate: Metered | None
    """What is left of the metered estimate: the estimate without what captures metered."""
    lots: tuple[Lot, ...]
    """Where the remaining credit came from, in spend order."""
    excess_rule: int = ExcessRule.BALANCE
    shortfall: int = 0
    owner: str = ""
    """Of a lease."""
    debited: int = 0
    """How much of what its expiry debited no late capture has accounted for."""
    debited_estimate: Metered | None = None
    """What of the estimate that debit metered, as far as no late capture accounted for it."""
    debited_entry: int = 0
    """The number of the entry of that debit."""
    free: int = 0
    """How much of the estimate was free of charge, as far as no capture accounted for it."""
    allowance: bytes = b""
    """The key of ALLOWANCES that counts it."""


class Entry(Record, frozen=True):
    """A line of the ledger."""

    kind: int
    currency: str
    amount: int
    available_after: int
    held_after: int
    create_us: int
    request_id: str
    hold: int
    """The hold's number, or 0."""
    grant: int
    """The grant's number, or 0."""
    metered: Metered | None
    resource: str
    shortfall: int = 0
    free: int = 0
    """How much of the metered quantity was free."""
    refunded: int = 0
    """The number of the entry that a refund reverses, or 0."""
    sources: tuple[tuple[int, ...], ...] = ()
    """Where credit came from or went to, in order: the number of a grant (OVERDRAFT_LOT: of none),
    the amount, and when the credit expires, if it does. Empty if ``grant`` says it all."""
    count: int = 0
    """How many deliveries a settlement of a lease sums up here; 0: one, as everywhere else."""


class Usage(WorkingRecord):
    """What one day's metered debits and captures came to."""

    quantity: int = 0
    amount: int = 0
    count: int = 0
    refunded_quantity: int = 0
    refunded_amount: int = 0
    shortfall: int = 0
    free: int = 0


class Refunded(Record, frozen=True):
    """How much of a debit or capture was refunded: of its sources, the last ones."""

    amount: int
    quantity: int = 0
    """Of its metered quantity."""


class HoldView(Record, frozen=True):
    """A hold as an answer shows it."""

    number: int
    amount: int
    captured: int
    remaining: int
    state: int
    expire_us: int
    policy: int
    excess_rule: int = ExcessRule.BALANCE
    shortfall: int = 0
    owner: str = ""
    resource: str = ""


class Answer(Record, frozen=True):
    """What a mutation answers, kept under its request id so that a repetition gets the same."""

    number: int
    """Of the entry that the mutation made; names the grant or hold that it created."""
    amount: int
    currency: str
    available: int
    held: int
    granted: int
    spent: int
    expired: int
    hold: HoldView | None = None
    voided: int = 0
    overdraft_limit: int = 0
    shortfall: int = 0
    shadow: bool = False


FAMILY: Final = "c"
"""What every key of this service begins with; short, as every key has it. Request records stand in
it too (``RequestRecords(FAMILY)``: "r" and "x")."""
ACCOUNTS: Final = Subspace(FAMILY, "n")
"""(account): each that has a wallet"""
LOTS: Final = Subspace(FAMILY, "l")
"""(account, currency, expire_us, priority, number) to Lot: the tails of purses"""
HOLDS: Final = Subspace(FAMILY, "h")
"""(account, number) to Hold"""
HOLD_EXPIRIES: Final = Subspace(FAMILY, "hx")
"""(account, expire_us, number) of each open hold"""
CLOSED_HOLDS: Final = Subspace(FAMILY, "hc")
"""(second in which the record may go, account, number) of each closed hold"""
GRANTS: Final = Subspace(FAMILY, "g")
"""(account, number) to GrantTerms"""
REFILLS: Final = Subspace(FAMILY, "gr")
"""(account, next_refill_us, number) of each recurring grant that will be refilled"""
REFUNDS: Final = Subspace(FAMILY, "er")
"""(account, number of a debit or capture) to Refunded, once a part of it was refunded"""
ENTRIES: Final = Subspace(FAMILY, "e")
"""(account, number) to Entry and its digest of DIGEST_BYTES; (account) WALLET_MARK to Wallet"""
WALLET_MARK: Final = b"\xff"
"""What a wallet's key ends with: it sorts behind the account's latest entry.

So what a debit writes of an account stands on one page of the store, not on two.
"""
USAGE: Final = Subspace(FAMILY, "u")
"""(account, UTC day since the epoch, meter, cache result, currency) to Usage"""
ALLOWANCES: Final = Subspace(FAMILY, "ua")
"""(account, meter, FreePeriod, first UTC day of the period) to Usage: what was free of charge"""
AGENDA: Final = Subspace(FAMILY, "a")
"""(agenda_us, account): when to look at which account without being asked"""

decode_wallet: Final = sealed_decoder(Wallet)
decode_lot: Final = sealed_decoder(Lot)
decode_hold: Final = sealed_decoder(Hold)
decode_grant: Final = sealed_decoder(GrantTerms)
decode_refunded: Final = sealed_decoder(Refunded)
decode_usage: Final = sealed_decoder(Usage)
decode_answer: Final = decoder(Answer)

_decode_entry = decoder(Entry)


def is_wallet(key: bytes) -> bool:
    """Whether a wallet stands at a key of ENTRIES; else it is an entry."""
    return key[key.index(0, len(ENTRIES.prefix)) + 1 :] == WALLET_MARK


def decode_entry(value: bytes) -> Entry:
    """The entry of what stands under a key of ENTRIES; does not look at the digest."""
    return _decode_entry(value[:-DIGEST_BYTES])


def entry_digest(before: bytes, key: bytes, encoded: bytes) -> bytes:
    """The digest of an entry over the one before it (empty: none), its key and its record."""
    return blake2b(before + key + encoded, digest_size=DIGEST_BYTES).digest()
