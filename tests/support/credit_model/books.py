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
    """Credit of one grant; the first three fields are its place in the spend order."""

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


class Hold(NamedTuple):
    """Credit set aside."""

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

    @property
    def remaining(self) -> int:
        return total(self.lots)


class Usage(NamedTuple):
    """One day's counters of a meter, cache result and currency."""

    quantity: int = 0
    amount: int = 0
    debits: int = 0
    shortfall: int = 0
    free_quantity: int = 0


class Books:
    """One account."""

    def __init__(self, account_id: str) -> None:
        self.account_id = account_id
        self.sequence = 0
        self.shadow = False
        self.purses: MutableMapping[str, Purse] = {}
        self.holds: MutableMapping[int, Hold] = {}
        self.open_holds: frozenset[int] = frozenset()
        self.usage: MutableMapping[tuple[int, str, int, str], Usage] = {}
        self.allowance: MutableMapping[tuple[str, int], int] = {}
        self.written: list[pb.Entry] = []
        """Entries since somebody took them."""

    def draft(self) -> Books:
        """A copy to work on; ``keep`` makes it the account's state."""
        draft = Books(self.account_id)
        for name, value in vars(self).items():
            over = ChainMap({}, value) if isinstance(value, dict) else value
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

    def unhold(self, currency: str, lots: Sequence[Lot]) -> None:
        """Held to available, each lot to its grant."""
        for lot in lots:
            purse = self.purse(currency)
            self.purses[currency] = purse._replace(held=purse.held - lot.remaining).put(lot)

    def unhold_over(self, currency: str, lot: Lot) -> None:
        """Held to expired: credit of a grant that is over never pays what is owed."""
        purse = self.purse(currency)
        self.purses[currency] = purse._replace(
            held=purse.held - lot.remaining, expired=purse.expired + lot.remaining
        )

    def expire(self, currency: str, lot: Lot) -> None:
        """Available to expired."""
        purse = self.purse(currency)
        lots = tuple(each for each in purse.lots if each != lot)
        self.purses[currency] = purse._replace(expired=purse.expired + lot.remaining, lots=lots)

    # what is written besides

    def enter(
        self, kind: pb.EntryKind.ValueType, currency: str, amount: int, now_us: int, **fields: Value
    ) -> int:
        """Appends an entry; gives its number. ``passing`` is available for this moment alone."""
        self.sequence += 1
        purse = self.purse(currency)
        hold, grant = fields.pop("hold", 0), fields.pop("grant", 0)
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
