"""An account's records as an audit reads them: in parts, each a consistent read.

With each part comes the moment that it is of: the wallet, and what must agree with it. Every record
is held against its checksum as it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32

from services.credits.account import wallet_key
from services.credits.books import DifferenceError
from services.credits.records import (
    AGENDA,
    ALLOWANCES,
    ENTRIES,
    GRANTS,
    HOLD_EXPIRIES,
    HOLDS,
    LOTS,
    NEVER_US,
    REFILLS,
    REFUNDS,
    USAGE,
    GrantTerms,
    HoldState,
    Wallet,
    decode_grant,
    decode_hold,
    decode_lot,
    decode_refunded,
    decode_usage,
    decode_wallet,
    is_wallet,
)
from services.store.errors import RecordDamagedError
from services.store.keys import Subspace
from services.store.port import ReadTransaction
from services.store.records import CHECK_BYTES, is_intact, unsealed

Pair = tuple[bytes, bytes]
Place = tuple[Any, ...]
"""The parts of a record's key, without the account."""

BEHIND = b"\xff\xff"
"""Behind an account as a part of a key: where the keys end that begin with it."""
SECTIONS: tuple[Subspace, ...] = (
    LOTS,
    HOLDS,
    HOLD_EXPIRIES,
    GRANTS,
    REFILLS,
    REFUNDS,
    USAGE,
    ALLOWANCES,
)
"""What an account has besides its wallet and entries, in the order in which an audit reads it."""
NAMES: Mapping[Subspace, str] = {
    LOTS: "lot",
    HOLDS: "hold",
    HOLD_EXPIRIES: "hold's expiry",
    GRANTS: "grant",
    REFILLS: "refill",
    REFUNDS: "refund",
    USAGE: "usage counter",
    ALLOWANCES: "free allowance",
}
_DECODERS: Mapping[Subspace, Callable[[bytes, bytes], Any]] = {
    LOTS: decode_lot,
    HOLDS: decode_hold,
    HOLD_EXPIRIES: unsealed,
    GRANTS: decode_grant,
    REFILLS: unsealed,
    REFUNDS: decode_refunded,
    USAGE: decode_usage,
    ALLOWANCES: decode_usage,
}


class Moment(NamedTuple):
    """What must be known of the moment in which records were read."""

    wallet: Wallet | None
    behind: bytes
    """A key of an entry behind the wallet's last one; empty: there is none."""
    in_agenda: bool
    """Whether the account stands in the agenda where its wallet says."""
    hold_due_us: int
    refill_due_us: int


class Part(NamedTuple):
    """Some of an account's records of one section."""

    section: Subspace
    found: dict[Place, Any]
    """Records by their places, in key order."""
    entries: Mapping[int, bytes] = MappingProxyType({})
    """Those that records of holds and refunds are about."""
    scheduled: Collection[Place] = ()
    """Places in HOLD_EXPIRIES (of holds) or REFILLS (of grants) that there are."""
    after: Place = ()
    """The records behind this place."""
    last: bool = True
    """Nothing of the section comes behind it."""

    @property
    def upto(self) -> Place:
        """Up to which record it goes, if it is not the last part."""
        return next(reversed(self.found), self.after)


def read_part(
    tx: ReadTransaction, *, account_id: str, section: Subspace, after: Place, size: int
) -> tuple[Moment, Part]:
    """Reads a part of at most ``size`` records; of lots, all of one currency.

    Raises ``DifferenceError`` for a damaged record.
    """
    begin, end = section.range(account_id)
    if after:
        begin = section.key(account_id, *after) + b"\x00"
    pairs = tx.range(begin, end, limit=1 if section is LOTS else size)
    last = not pairs if section is LOTS else len(pairs) < size
    if section is LOTS and pairs:
        currency = LOTS.parts(pairs[0][0])[1]
        pairs = tx.range(*LOTS.range(account_id, currency))
    found = records(account_id, section, pairs)
    entries: dict[int, bytes] = {}
    if section in {HOLDS, REFUNDS}:
        numbers = [int(place[0]) for place in found]
        values = tx.get_many([ENTRIES.key(account_id, number) for number in numbers])
        entries = {
            number: value
            for number, value in zip(numbers, values, strict=True)
            if value is not None
        }
    scheduled: list[Place] = []
    if planned := plans(section, found):
        index, places = planned
        values = tx.get_many([index.key(account_id, *place) for place in places])
        scheduled = [place for place, value in zip(places, values, strict=True) if value]
    part = Part(section, found, entries, scheduled, after, last)
    return _moment(tx, account_id), part


def records(account_id: str, section: Subspace, pairs: Iterable[Pair]) -> dict[Place, Any]:
    """The records of pairs by their places; raises ``DifferenceError`` for a damaged one."""
    decode, found = _DECODERS[section], {}
    for key, value in pairs:
        try:
            record = decode(key, value)
        except RecordDamagedError as error:
            raise damaged(account_id, NAMES[section], key, value) from error
        found[section.parts(key)[1:]] = record
    return found


def plans(section: Subspace, found: Mapping[Place, Any]) -> tuple[Subspace, list[Place]] | None:
    """Where else the records of a section must stand, so that they are looked at in time."""
    if section is HOLDS:
        return HOLD_EXPIRIES, [
            (hold.expire_us, *place)
            for place, hold in found.items()
            if hold.state == HoldState.OPEN
        ]
    if section is GRANTS:
        return REFILLS, [
            (terms.next_refill_us, *place) for place, terms in found.items() if is_planned(terms)
        ]
    return None


def is_planned(terms: GrantTerms) -> bool:
    """Whether a grant will be refilled."""
    return terms.next_refill_us != NEVER_US


def wallet_of(account_id: str, key: bytes, value: bytes) -> Wallet:
    """A wallet; raises ``DifferenceError`` for a damaged one."""
    try:
        return decode_wallet(key, value)
    except RecordDamagedError as error:
        raise damaged(account_id, "wallet", key, value) from error


def damaged(account_id: str, name: str, key: bytes, value: bytes) -> DifferenceError:
    """The difference of a record that does not have its checksum."""
    written, found = value[:-CHECK_BYTES], value[-CHECK_BYTES:]
    expected = crc32(key + written).to_bytes(CHECK_BYTES, "little")
    whose = f"{account_id}: " if account_id else ""
    message = f"{whose}the record of a {name} is damaged, its checksum is wrong; its key is {key!r}"
    return DifferenceError(account_id, "checksum", expected.hex(), found.hex(), message)


def key_parts(section: Subspace, key: bytes) -> tuple[Any, ...]:
    """The parts of a key; raises ``DifferenceError`` when it is none of the section."""
    try:
        return section.parts(key[:-1] if section is ENTRIES and is_wallet(key) else key)
    except Exception as error:  # whatever damaged bytes do to the tuple layer
        message = f"there is a key that cannot be read: {key!r}"
        raise DifferenceError("", "key", "a key", error, message) from error


def account_in(section: Subspace, key: bytes) -> str:
    """The account in the key of a damaged record, if it can be read."""
    with suppress(DifferenceError):
        found = [part for part in key_parts(section, key) if isinstance(part, str)]
        return found[0] if found else ""
    return ""


def _moment(tx: ReadTransaction, account_id: str) -> Moment:
    key = wallet_key(account_id)
    stored = tx.get(key)
    wallet = None if stored is None else wallet_of(account_id, key, stored)
    known = wallet or Wallet()
    begin, end = ENTRIES.range(account_id)
    begin = ENTRIES.key(account_id, known.sequence) + b"\x00" if known.sequence else begin
    behind = tx.range(begin, end, limit=1)
    return Moment(
        wallet,
        behind[0][0] if behind else b"",
        known.agenda_us == NEVER_US or _in_agenda(tx, account_id, known.agenda_us),
        _first_due_us(tx, HOLD_EXPIRIES, account_id),
        _first_due_us(tx, REFILLS, account_id),
    )


def _in_agenda(tx: ReadTransaction, account_id: str, agenda_us: int) -> bool:
    key = AGENDA.key(agenda_us, account_id)
    value = tx.get(key)
    if value is not None and not is_intact(key, value):
        raise damaged(account_id, "place in the agenda", key, value)
    return value is not None


def _first_due_us(tx: ReadTransaction, section: Subspace, account_id: str) -> int:
    first = tx.range(*section.range(account_id), limit=1)
    if not first:
        return NEVER_US
    place = next(iter(records(account_id, section, first)))
    return int(place[0])
