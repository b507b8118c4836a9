"""Damaged records: an audit finds every one, and the service makes nothing of one."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import pytest
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from services.credits.account import wallet_key
from services.credits.holds import forget_closed
from services.credits.ledger_servicer import LedgerServicer
from services.credits.names import entry_name
from services.credits.records import (
    ACCOUNTS,
    AGENDA,
    ALLOWANCES,
    CLOSED_HOLDS,
    ENTRIES,
    FAMILY,
    GRANTS,
    HOLD_EXPIRIES,
    HOLDS,
    LOTS,
    REFILLS,
    REFUNDS,
    USAGE,
    is_wallet,
)
from services.rpc.call import Call
from services.rpc.errors import InternalError
from services.store.errors import RecordDamagedError
from services.store.keys import Subspace
from services.store.port import Operation, ReadTransaction, Transaction
from tests.support.credit_service import Account, Clock, CreditService, metered

FLIPS = 30
"""Of each kind of record."""
REQUESTS, REQUEST_EXPIRIES = Subspace(FAMILY, "r"), Subspace(FAMILY, "x")
KINDS: Mapping[str, Subspace] = {
    "place in the list of accounts": ACCOUNTS,
    "wallet": ENTRIES,
    "entry": ENTRIES,
    "lot": LOTS,
    "hold": HOLDS,
    "hold's expiry": HOLD_EXPIRIES,
    "closed hold's expiry": CLOSED_HOLDS,
    "grant": GRANTS,
    "refill": REFILLS,
    "refund": REFUNDS,
    "usage counter": USAGE,
    "free allowance": ALLOWANCES,
    "place in the agenda": AGENDA,
    "request": REQUESTS,
    "request's expiry": REQUEST_EXPIRIES,
}
WITHOUT_ACCOUNT = {"request", "request's expiry"}
NOT_MISSED = {"free allowance", "closed hold's expiry", "request's expiry"}
"""What nothing else tells of."""
Pair = tuple[bytes, bytes]


@pytest.fixture
async def full(memory: CreditService) -> CreditService:
    """Two accounts with records of every kind."""
    for name in ("bob", "zoe"):
        own = Account(memory.direct, name)
        for priority in range(20):
            await own.grant(100, priority=priority)
        monthly = pb.Recurrence(period=pb.REFILL_PERIOD_MONTH)
        await own.grant(70, recurrence=monthly)
        paid = await own.debit(metered=metered("download", 20_000))
        await own.debit(metered=metered("scan", 500))
        await own.refund(paid.entry_id, 5)
        await own.reserve(30)
        await own.release((await own.reserve(7)).hold)
    return memory


async def _audit(service: CreditService) -> ledger_pb2.AuditResponse:
    servicer = LedgerServicer(service.ledger, service.store)
    request = ledger_pb2.AuditRequest()
    return [answer async for answer in servicer.Audit(request, Call("Audit"))][-1]


async def _pairs(service: CreditService, bounds: tuple[bytes, bytes]) -> list[Pair]:
    return (await service.store.read(partial(_all, bounds=bounds))).result


def _all(tx: ReadTransaction, *, bounds: tuple[bytes, bytes]) -> list[Pair]:
    return tx.range(*bounds)


async def _everything(service: CreditService) -> list[Pair]:
    return await _pairs(service, (b"\x00", b"\xff"))


def _flipped(data: bytes, dice: random.Random, first: int = 0) -> bytes:
    """The data with one byte changed, not one of the first ones."""
    at = dice.randrange(first, len(data))
    return data[:at] + bytes([data[at] ^ dice.randrange(1, 256)]) + data[at + 1 :]


async def _replaced(service: CreditService, old: Pair, new: Pair) -> None:
    def replace(tx: Transaction) -> None:
        tx.clear(old[0])
        tx.set(*new)

    await service.store.commit(Operation(replace))


async def _of(service: CreditService, kind: str) -> list[Pair]:
    """All records of a kind."""
    pairs = await _pairs(service, (KINDS[kind].prefix, KINDS[kind].prefix + b"\xff"))
    if KINDS[kind] is ENTRIES:
        pairs = [pair for pair in pairs if is_wallet(pair[0]) == (kind == "wallet")]
    return pairs


def _bounds(section: Subspace) -> tuple[bytes, bytes]:
    return section.prefix, section.prefix + b"\xff"


@pytest.mark.parametrize("kind", KINDS)
async def test_every_flipped_byte_of_any_record_is_found_and_named(
    full: CreditService, kind: str, dice: random.Random
) -> None:
    pairs = await _of(full, kind)
    assert (await _audit(full)).done
    for _ in range(FLIPS):
        key, value = dice.choice(pairs)
        damaged = key, _flipped(value, dice)
        await _replaced(full, (key, value), damaged)
        difference = (await _audit(full)).difference
        if kind == "entry":
            account, number = ENTRIES.parts(key)
            assert (difference.account_id, difference.entry_id) == (
                account,
                entry_name(int(number)),
            )
        else:
            assert f"the record of a {kind} is damaged" in difference.message, damaged
            assert repr(key) in difference.message
            whose = {"bob", "zoe"} if kind not in WITHOUT_ACCOUNT else {""}
            assert difference.account_id in whose
            assert difference.account_id.encode() in key
        await _replaced(full, damaged, (key, value))
    assert (await _audit(full)).done


@pytest.mark.parametrize("kind", KINDS)
async def test_every_flipped_byte_of_a_key_is_found(
    full: CreditService, kind: str, dice: random.Random
) -> None:
    pairs = await _of(full, kind)
    family = len(Subspace(FAMILY).prefix)
    for _ in range(FLIPS):
        key, value = dice.choice(pairs)
        damaged = _flipped(key, dice, family), value
        await _replaced(full, (key, value), damaged)
        assert (await _audit(full)).HasField("difference"), damaged
        await _replaced(full, damaged, (key, value))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_record_at_the_key_of_another_is_found(
    full: CreditService, kind: str, dice: random.Random
) -> None:
    (key, value), (other, _) = dice.sample(await _of(full, kind), 2)
    await full.store.commit(Operation(lambda tx: tx.set(other, value)))
    assert (await _audit(full)).HasField("difference"), (key, other)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in NOT_MISSED])
async def test_a_missing_record_is_found(
    full: CreditService, kind: str, dice: random.Random
) -> None:
    key, _ = dice.choice(await _of(full, kind))
    await full.store.commit(Operation(lambda tx: tx.clear(key)))
    assert (await _audit(full)).HasField("difference"), key


async def _damage(service: CreditService, section: Subspace, begins: bytes = b"") -> Pair:
    """Flips a bit of each of bob's records of a kind; gives the first, as it was."""
    begin = begins or section.key("bob")
    pairs = await _pairs(service, (begin, begin + b"\xff"))
    for key, value in pairs:
        flipped = value[:-1] + bytes([value[-1] ^ 1])
        await _replaced(service, (key, value), (key, flipped))
    return pairs[0]


async def _refused(
    service: CreditService, section: Subspace, call: Callable[[], Awaitable[object]]
) -> None:
    """A call fails because of a damaged record, whose key it names, and changes nothing."""
    await _damage(service, section)
    before = await _everything(service)
    with pytest.raises(RecordDamagedError, match="is damaged") as caught:
        await call()
    assert caught.value.key.startswith(section.prefix)
    assert caught.value.key in {key for key, _ in before}
    assert await _everything(service) == before


async def test_nothing_is_done_with_a_damaged_wallet(full: CreditService, bob: Account) -> None:
    await _damage(full, ENTRIES, wallet_key("bob"))
    before = await _everything(full)
    calls: list[Callable[[], Awaitable[object]]] = [
        partial(bob.debit, 1),
        partial(bob.grant, 1),
        partial(bob.reserve, 1),
        partial(bob.set_terms, overdraft_limit=1),
        bob.balance,
        bob.entries,
    ]
    for call in calls:
        with pytest.raises(RecordDamagedError) as caught:
            await call()
        assert caught.value.key == wallet_key("bob")
    assert await _everything(full) == before
    await bob.debit(1, account_id="zoe")


async def test_nothing_is_done_with_other_damaged_records(
    full: CreditService, bob: Account
) -> None:
    paid = await bob.debit(metered=metered("download", 20_000))
    held = (await bob.reserve(30)).hold
    given = (await bob.grant(1)).grant_id
    await _refused(full, USAGE, partial(bob.debit, metered=metered("download", 20_000)))
    await _refused(full, ALLOWANCES, partial(bob.debit, metered=metered("scan", 5)))
    await _refused(full, HOLDS, partial(bob.capture, held, 1))
    await _refused(full, GRANTS, partial(bob.void, given))
    await _refused(full, LOTS, partial(bob.debit, 1700))
    await _refused(full, ENTRIES, partial(bob.refund, paid.entry_id))


async def test_damaged_entries_are_not_listed(full: CreditService, bob: Account) -> None:
    await _refused(full, ENTRIES, bob.entries)


async def test_a_damaged_answer_is_not_given_and_its_request_not_done_again(
    full: CreditService, bob: Account
) -> None:
    first = await bob.debit(5, request_id="once")
    key = full.requests.key("once")
    good = await _damage(full, REQUESTS, key)
    before = await _everything(full)
    with pytest.raises(RecordDamagedError) as caught:
        await bob.debit(5, request_id="once")
    assert caught.value.key == key
    assert await _everything(full) == before
    await full.store.commit(Operation(lambda tx: tx.set(*good)))
    again = await bob.debit(5, request_id="once")
    assert (again.replayed, again.entry_id) == (True, first.entry_id)


async def test_a_damaged_schedule_stops_the_account_and_no_other(
    full: CreditService, bob: Account, clock: Clock
) -> None:
    for section in (HOLD_EXPIRIES, AGENDA):
        await _damage(full, section, section.prefix)
    clock.advance(3600)
    before = await _everything(full)
    with pytest.raises(RecordDamagedError):
        await bob.debit(1)
    await full.sweeper.sweep()
    assert await _everything(full) == before
    await bob.grant(1, account_id="new")


async def test_damaged_indexes_remove_nothing(full: CreditService, clock: Clock) -> None:
    kept = REQUEST_EXPIRIES, CLOSED_HOLDS
    for section in kept:
        await _damage(full, section, section.prefix)
    records = [await _pairs(full, _bounds(section)) for section in (REQUESTS, HOLDS)]
    clock.advance(30 * 24 * 3600)
    now_us = clock.now_us
    await full.store.commit(Operation(partial(full.requests.sweep, now_us=now_us)))
    await full.store.commit(Operation(partial(forget_closed, now_us=now_us, limit=100)))
    assert [await _pairs(full, _bounds(section)) for section in (REQUESTS, HOLDS)] == records


async def test_callers_learn_of_a_fault_and_its_incident(
    service: CreditService, alice: Account
) -> None:
    await alice.grant(100)
    key = wallet_key("alice")
    await service.store.commit(Operation(lambda tx: tx.set(key, b"damaged")))
    with pytest.raises(InternalError) as caught:
        await alice.debit(1)
    assert caught.value.metadata["incident_id"]
    assert "alice" not in str(caught.value)
