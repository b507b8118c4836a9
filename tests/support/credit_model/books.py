"""What an account is to the model: immutable parts, and a draft that an operation works on.

Written from the contract (``protos/tollmesh/credits/v1``) alone, not from the service. Clarity over
speed: totals are summed up, nothing is cached. A draft that is not kept leaves no trace.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple
from zlib import crc32

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb

Value = Any  # of a field, as the generated message takes it
NEVER = 2**63 - 1
DAY_US = 86_400_000_000
OVERDRAFT = 0
"""The number of the grant that no grant is: what was taken of it is owed."""


class Refused(Exception):  # noqa: N818 (a refusal is an answer)
    """What the service must refuse, by reason and metadata."""

    def __init__(self, reason: str, **metadata: object) -> None:
        super().__init__(reason, metadata)
        self.reason = reason
        self.metadata = {name: str(value) for name, value in metadata.items()}


class Lot(NamedTuple):
    """Credit of one grant; the first three fields are its place in the spend order.

    A recurring grant's credit is of its period: it expires when the period ends.
    """

    expire_us: int
    priority: int
    number: int
    remaining: int


class Purse(NamedTuple):
    """Credit in one currency."""

    granted: int = 0
    held: int = 0
    spent: int = 0
    expired: int = 0
    voided: int = 0
    debt: int = 0
    overdraft_limit: int = 0
    lots: tuple[Lot, ...] = ()

    @property
    def available(self) -> int:
        return sum(lot.remaining for lot in self.lots) - self.debt

    def put(self, lot: Lot) -> Purse:
        """Credit comes in: it pays what is owed, the rest stands with its grant."""
        paid = min(self.debt, lot.remaining)
        rest = lot._replace(remaining=lot.remaining - paid)
        lots = {each[:3]: each for each in self.lots}
        if rest.remaining:
            there = lots.get(rest[:3])
            more = there.remaining if there else 0
            lots[rest[:3]] = rest._replace(remaining=rest.remaining + more)
        return self._replace(debt=self.debt - paid, lots=tuple(sorted(lots.values())))

    def take(self, amount: int) -> tuple[Purse, tuple[Lot, ...]]:
        """Credit goes out, in spend order; what there is none for is owed."""
        taken, rest = split(self.lots, amount)
        owed = amount - total(taken)
        if owed:
            taken = (*taken, Lot(NEVER, 0, OVERDRAFT, owed))
        return self._replace(lots=rest, debt=self.debt + owed), taken


class Metered(NamedTuple):
    """A quantity of a meter."""

    meter: str
    quantity: int
    cache: int

    def message(self) -> pb.MeteredQuantity:
        cache = pb.CacheResult.ValueType(self.cache)
        return pb.MeteredQuantity(meter=self.meter, quantity=self.quantity, cache_result=cache)


class Grant(NamedTuple):
    """What a grant was given with, and what became of it."""

    number: int
    currency: str
    amount: int
    priority: int
    create_us: int
    expire_us: int
    """Of a recurring one: when its present period ends."""
    recurrence: pb.Recurrence | None = None
    refills: int = 0
    next_refill_us: int = NEVER
    added: int = 0
    """In the present period, with what was carried over."""
    voided: bool = False


class Outlay(NamedTuple):
    """What a debit or capture took, and what of it was refunded since."""

    currency: str
    amount: int
    lots: tuple[Lot, ...]
    """In the order in which they were taken."""
    metered: Metered | None
    hold: int = 0
    refunded: int = 0
    refunded_quantity: int = 0


class Hold(NamedTuple):
    """Credit set aside. Of one whose expiry debited it, the last four fields are what is left."""

    number: int
    currency: str
    amount: int
    expire_us: int
    policy: int
    excess_rule: int
    resource: str
    estimate: Metered | None
    lots: tuple[Lot, ...]
    captured: int = 0
    state: int = pb.HOLD_STATE_OPEN
    shortfall: int = 0
    owner: str = ""
    free: int = 0
    """How much of the estimate is free of charge."""
    allowance: tuple[str, str, int] | None = None
    """Where that is counted when it is used up."""
    debit: int = 0
    """The number of the entry by which the expiry debited."""
    debited: int = 0
    """Of its amount: what no late capture has accounted for."""
    debited_estimate: Metered | None = None
    """Of what it metered: likewise."""

    @property
    def remaining(self) -> int:
        return total(self.lots)


class Usage(NamedTuple):
    """One day's counters of a meter, cache result and currency."""

    quantity: int = 0
    amount: int = 0
    deliveries: int = 0
    shortfall: int = 0
    free_quantity: int = 0
    refunded_quantity: int = 0
    refunded_amount: int = 0


class Books:
    """One account."""

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.sequence = 0
        self.shadow = False
        self.purses: MutableMapping[str, Purse] = {}
        self.grants: MutableMapping[int, Grant] = {}
        self.recurring: frozenset[int] = frozenset()
        """Numbers of the grants that will be refilled."""
        self.holds: MutableMapping[int, Hold] = {}
        self.open_holds: frozenset[int] = frozenset()
        self.outlays: MutableMapping[int, Outlay] = {}
        """By the number of their entry."""
        self.usage: MutableMapping[tuple[int, str, int, str], Usage] = {}
        self.allowance: MutableMapping[tuple[str, str, int], int] = {}
        self.written: list[pb.Entry] = []
        """Entries since somebody took them."""

    def draft(self) -> Books:
        """A copy to work on; ``keep`` makes it the account's state."""
        draft = Books(self.account_id)
        for name, value in vars(self).items():
            over = ChainMap({}, value) if isinstance(value, MutableMapping) else value
            setattr(draft, name, over)
        draft.purses = dict(self.purses)
        draft.written = []
        return draft

    def keep(self, draft: Books) -> None:
        """Takes a draft's state over."""
        for name, value in vars(draft).items():
            if isinstance(value, ChainMap):
                getattr(self, name).update(value.maps[0])
            elif name == "written":
                self.written += value
            else:
                setattr(self, name, value)

    def purse(self, currency: str) -> Purse:
        return self.purses.get(currency, Purse())

    # movements

    def receive(self, currency: str, lot: Lot) -> None:
        """New credit to available."""
        purse = self.purse(currency)
        self.purses[currency] = purse._replace(granted=purse.granted + lot.remaining).put(lot)

    def spend(self, currency: str, amount: int) -> tuple[Lot, ...]:
        """Available to spent."""
        purse, taken = self.purse(currency).take(amount)
        if amount:
            self.purses[currency] = purse._replace(spent=purse.spent + amount)
        return taken

    def hold(self, currency: str, amount: int) -> tuple[Lot, ...]:
        """Available to held."""
        purse, taken = self.purse(currency).take(amount)
        if amount:
            self.purses[currency] = purse._replace(held=purse.held + amount)
        return taken

    def spend_held(self, currency: str, amount: int) -> None:
        """Held to spent."""
        if amount:
            purse = self.purse(currency)
            self.purses[currency] = purse._replace(
                held=purse.held - amount, spent=purse.spent + amount
            )

    def put(self, currency: str, lot: Lot) -> None:
        """Credit comes back to available; the caller says in the purse where it came from."""
        self.purses[currency] = self.purse(currency).put(lot)

    def move(self, currency: str, **more: int) -> None:
        """Adds to counters of a purse."""
        purse = self.purse(currency)
        sums = {name: getattr(purse, name) + amount for name, amount in more.items()}
        self.purses[currency] = purse._replace(**sums)

    def withdraw(self, currency: str, place: tuple[int, int, int]) -> int:
        """Takes out of available what stands at a place: the caller says where to."""
        lots = self.purse(currency).lots
        if not lots:
            return 0
        others = tuple(lot for lot in lots if lot[:3] != place)
        self.purses[currency] = self.purse(currency)._replace(lots=others)
        return total(lots) - total(others)

    # what is written besides

    def enter(
        self, kind: pb.EntryKind.ValueType, currency: str, amount: int, now_us: int, **fields: Value
    ) -> int:
        """Appends an entry; gives its number.

        Args:
            fields: further ones; ``hold``, ``grant`` and ``refunded`` are numbers, ``passing`` is
                what is available for this moment alone.
        """
        self.sequence += 1
        purse = self.purse(currency)
        hold, grant = fields.pop("hold", 0), fields.pop("grant", 0)
        refunded = fields.pop("refunded", 0)
        available = purse.available + fields.pop("passing", 0)
        self.written.append(
            pb.Entry(
                entry_id=entry_name(self.sequence),
                account_id=self.account_id,
                currency=currency,
                kind=kind,
                amount=amount,
                available_after=available,
                held_after=purse.held,
                hold_id=self.hold_name(hold) if hold else "",
                grant_id=self.grant_name(grant) if grant else "",
                refunded_entry_id=entry_name(refunded) if refunded else "",
                create_time=timestamp(now_us),
                **fields,
            )
        )
        return self.sequence

    def grant_name(self, number: int) -> str:
        """As the service names grants."""
        return f"grant-{number:x}-{crc32(self.account_id.encode()):08x}"

    def hold_name(self, number: int) -> str:
        """As the service names holds."""
        return f"hold-{number:x}-{crc32(self.account_id.encode()):08x}"

    def grant_of(self, name: str) -> Grant | None:
        """The grant of that name."""
        number = number_in(name)
        return self.grants.get(number) if self.grant_name(number) == name else None

    def hold_of(self, name: str) -> Hold | None:
        """The hold or lease of that name."""
        number = number_in(name)
        return self.holds.get(number) if self.hold_name(number) == name else None


def number_in(name: str) -> int:
    """The number in what may be the name of a grant, hold or entry; 0 if there is none."""
    parts = name.split("-")
    try:
        return int(parts[1] if len(parts) > 1 else name, 16)
    except ValueError:
        return 0


def entry_name(number: int) -> str:
    """As the service names entries."""
    return f"{number:016x}"


def total(lots: Sequence[Lot]) -> int:
    """What lots have together."""
    return sum(lot.remaining for lot in lots)


def split(lots: Sequence[Lot], amount: int) -> tuple[tuple[Lot, ...], tuple[Lot, ...]]:
    """The first ``amount`` of lots (or all), and the rest."""
    first, rest = [], []
    for lot in lots:
        now = min(amount, lot.remaining)
        amount -= now
        if now:
            first.append(lot._replace(remaining=now))
        if lot.remaining > now:
            rest.append(lot._replace(remaining=lot.remaining - now))
    return tuple(first), tuple(rest)


def timestamp(time_us: int) -> Timestamp:
    """Microseconds since 1970 as a message."""
    seconds, rest = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def microseconds(time: Timestamp | Duration) -> int:
    """Of a Timestamp or Duration; what is finer is cut off."""
    return time.seconds * 1_000_000 + time.nanos // 1000
