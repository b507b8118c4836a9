"""The audit: right books are right, and whatever was changed behind the service's back is found."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import pytest
from tollmesh.credits.v1 import ledger_pb2 as pb

from services.credits import accountscan, audit
from services.credits.account import load_wallet, wallet_key
from services.credits.ledger_servicer import LedgerServicer
from services.credits.names import entry_name
from services.credits.records import (
    AGENDA,
    ENTRIES,
    GRANTS,
    HOLDS,
    LOTS,
    REFUNDS,
    USAGE,
    decode_grant,
    decode_hold,
    decode_lot,
    decode_refunded,
    decode_usage,
)
from services.rpc.call import Call
from services.store.errors import PageTokenInvalidError
from services.store.keys import Subspace
from services.store.open import open_store
from services.store.port import Operation, Transaction
from services.store.records import changed, sealed_record
from tests.credits.test_any_course import Course
from tests.support.credit_service import Account, Clock, CreditService, metered
from tests.support.seeds import chosen_seed

STEPS = 150
Sabotage = Callable[[Transaction], object]


async def _audit(
    service: CreditService, account_id: str = "", cursor: str = ""
) -> list[pb.AuditResponse]:
    servicer = LedgerServicer(service.ledger, service.store)
    request = pb.AuditRequest(account_id=account_id, cursor=cursor)
    return [answer async for answer in servicer.Audit(request, Call("Audit"))]


async def _sabotaged(service: CreditService, sabotage: Sabotage) -> pb.Difference:
    assert (await _audit(service))[-1].done
    await service.store.commit(Operation(sabotage))
    last = (await _audit(service))[-1]
    assert not last.done
    assert last.HasField("difference"), last
    assert last.difference.message
    return last.difference


@pytest.fixture
async def busy(memory: CreditService, bob: Account) -> CreditService:
    """Bob has a little of everything: lots in a tail, an open hold, a refund, usage, terms."""
    for priority in range(20):
        await bob.grant(100, priority=priority)
    await bob.set_terms(overdraft_limit=10)
    paid = await bob.debit(metered=metered("download", 20_000))
    await bob.refund(paid.entry_id, 5)
    await bob.reserve(30)
    return memory


@pytest.mark.parametrize("attempt", range(3))
async def test_right_books_are_right_after_any_calls(
    memory: CreditService, bob: Account, clock: Clock, attempt: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = chosen_seed() if attempt else 0
    if attempt != 1:  # which reads the account alone
        monkeypatch.setattr(audit, "TOGETHER", 0)
        monkeypatch.setattr(audit, "ENTRY_PAGE", 7)
        monkeypatch.setattr(audit, "RECORD_PAGE", 3)
    course, last = Course(seed, bob, clock), pb.AuditResponse()
    for step in range(STEPS):
        await course.step()
        if step % 10 == 9:
            last = (await _audit(memory))[-1]
            assert last.done, last
    count = (await memory.store.read(lambda tx: load_wallet(tx, "bob"))).result.sequence
    assert (last.accounts, last.entries) == (1, count)


async def test_an_audit_goes_on_behind_its_cursor(
    memory: CreditService, bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "REPORT_ENTRIES", 1)
    for number in range(4):
        await bob.grant(1, account_id=f"account-{number}")
    answers = await _audit(memory)
    assert answers[-1].done
    assert answers[-1].accounts == answers[-1].entries == 4
    for answer in answers:
        rest = await _audit(memory, cursor=answer.cursor)
        assert rest[-1].done
        assert answer.accounts + rest[-1].accounts == 4
    with pytest.raises(PageTokenInvalidError):
        await _audit(memory, "account-1", answers[-1].cursor)
    assert (await _audit(memory, "account-1"))[-1].entries == 1
    assert (await _audit(memory, "nobody"))[-1].done


async def test_an_audit_does_not_mind_what_happens_meanwhile(
    busy: CreditService, bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "TOGETHER", 0)
    monkeypatch.setattr(audit, "ENTRY_PAGE", 2)
    monkeypatch.setattr(audit, "RECORD_PAGE", 1)
    monkeypatch.setattr(audit, "REPORT_ENTRIES", 1)
    servicer = LedgerServicer(busy.ledger, busy.store)
    answer = pb.AuditResponse()
    async for answer in servicer.Audit(pb.AuditRequest(), Call("Audit")):
        if answer.entries < 60:
            paid = await bob.debit(metered=metered("upload", 3000))
            await bob.refund(paid.entry_id, 1)
            await bob.reserve(1)
    assert answer.done, answer
    assert answer.entries > 24


@pytest.mark.parametrize("pairs", [2, 10, 10_000])
async def test_small_and_large_accounts_are_read_as_they_fit(
    memory: CreditService, bob: Account, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    monkeypatch.setattr(accountscan, "PAIRS", pairs)
    for number, debits in enumerate((0, 3, 20, 1, 1, 0, 9, 30, 2)):
        name = f"account-{number}"
        await bob.grant(100, account_id=name)
        for _ in range(debits):
            await bob.debit(1, account_id=name)
    last = (await _audit(memory))[-1]
    assert last.done, last
    assert (last.accounts, last.entries) == (9, 75)
    for number in range(9):
        key = ENTRIES.key(f"account-{number}", 1)
        stored = (await memory.store.read(lambda tx, key=key: tx.get(key))).result  # type: ignore[misc]  # mypy cannot infer a default's type
        await memory.store.commit(Operation(partial(_set, key=key, value=b"\xc1" * 20)))
        found = (await _audit(memory))[-1].difference
        assert (found.account_id, found.entry_id) == (f"account-{number}", entry_name(1))
        await memory.store.commit(Operation(partial(_set, key=key, value=stored)))


async def test_an_account_in_the_middle_without_a_wallet_is_found(
    memory: CreditService, bob: Account
) -> None:
    for name in ("a", "b", "c"):
        await bob.grant(1, account_id=name)
    difference = await _sabotaged(memory, lambda tx: tx.clear(wallet_key("b")))
    assert (difference.account_id, difference.field) == ("b", "wallet")


def _purse_amount(name: str) -> Sabotage:
    def change(tx: Transaction) -> None:
        wallet = load_wallet(tx, "bob")
        purse = wallet.purses["credit"]
        setattr(purse, name, getattr(purse, name) + 1)
        tx.set(wallet_key("bob"), sealed_record(wallet_key("bob"), wallet))

    return change


@pytest.mark.parametrize(
    "name",
    [
        "granted",
        "available",
        "held",
        "spent",
        "expired",
        "voided",
        "debt",
        "overdraft_limit",
        "tail",
    ],
)
async def test_a_changed_purse_is_found(busy: CreditService, name: str) -> None:
    difference = await _sabotaged(busy, _purse_amount(name))
    assert (difference.account_id, difference.field) == ("bob", name)


async def test_a_changed_lot_of_the_head_is_found(busy: CreditService) -> None:
    def change(tx: Transaction) -> None:
        wallet = load_wallet(tx, "bob")
        wallet.purses["credit"].head[0].remaining += 1
        tx.set(wallet_key("bob"), sealed_record(wallet_key("bob"), wallet))

    assert (await _sabotaged(busy, change)).field == "remaining"


def _record(subspace: Subspace, decode: Callable[[bytes, bytes], Any], field: str) -> Sabotage:
    def change(tx: Transaction) -> None:
        key, value = tx.range(*subspace.range("bob"), limit=1)[0]
        record = decode(key, value)
        after = changed(record, **{field: getattr(record, field) + 1})
        tx.set(key, sealed_record(key, after))

    return change


@pytest.mark.parametrize(
    ("subspace", "decode", "field"),
    [
        (LOTS, decode_lot, "remaining"),
        (HOLDS, decode_hold, "remaining"),
        (HOLDS, decode_hold, "amount"),
        (HOLDS, decode_hold, "captured"),
        (GRANTS, decode_grant, "amount"),
        (REFUNDS, decode_refunded, "amount"),
        (USAGE, decode_usage, "quantity"),
        (USAGE, decode_usage, "refunded_amount"),
    ],
)
async def test_a_changed_record_is_found(
    busy: CreditService,
    subspace: Subspace,
    decode: Callable[[bytes, bytes], Any],
    field: str,
) -> None:
    difference = await _sabotaged(busy, _record(subspace, decode, field))
    assert (difference.account_id, difference.field) == ("bob", field)


@pytest.mark.parametrize("subspace", [LOTS, HOLDS, GRANTS, REFUNDS, USAGE])
async def test_a_missing_or_damaged_record_is_found(
    busy: CreditService, subspace: Subspace
) -> None:
    def damage(tx: Transaction) -> None:
        tx.set(key, b"\xc1")

    pairs = (await busy.store.read(lambda tx: tx.range(*subspace.range("bob"), limit=1))).result
    key, value = pairs[0]
    assert (await _sabotaged(busy, lambda tx: tx.clear(key))).account_id == "bob"
    await busy.store.commit(Operation(lambda tx: tx.set(key, value)))
    assert "is damaged" in (await _sabotaged(busy, damage)).message


async def test_a_missing_entry_is_found(busy: CreditService) -> None:
    difference = await _sabotaged(busy, lambda tx: tx.clear(ENTRIES.key("bob", 7)))
    assert (difference.entry_id, difference.field) == (entry_name(7), "number")


async def test_the_last_entries_cannot_be_cut_off(busy: CreditService) -> None:
    wallet = (await busy.store.read(lambda tx: load_wallet(tx, "bob"))).result
    last = ENTRIES.key("bob", wallet.sequence)
    difference = await _sabotaged(busy, lambda tx: tx.clear(last))
    assert difference.entry_id == entry_name(wallet.sequence)


async def test_an_entry_behind_the_last_one_is_found(busy: CreditService) -> None:
    difference = await _sabotaged(busy, lambda tx: tx.set(ENTRIES.key("bob", 99), b"x" * 20))
    assert (difference.entry_id, difference.field) == (entry_name(99), "number")


async def test_records_without_a_wallet_are_found(busy: CreditService, bob: Account) -> None:
    await bob.grant(1, account_id="zoe")
    difference = await _sabotaged(busy, lambda tx: tx.clear(wallet_key("bob")))
    assert (difference.account_id, difference.field) == ("bob", "wallet")
    alone = (await _audit(busy, "bob"))[-1].difference
    assert alone.field == "wallet"
    assert (await _audit(busy, "zoe"))[-1].done


async def test_an_account_that_nobody_would_look_at_is_found(busy: CreditService) -> None:
    difference = await _sabotaged(busy, lambda tx: tx.clear_range(*AGENDA.range()))
    assert difference.field == "agenda"


async def test_any_flipped_byte_of_an_entry_is_found(
    service: CreditService, clock: Clock, tmp_path: Path
) -> None:
    seed = chosen_seed()
    dice = random.Random(seed)
    course = Course(seed, Account(service.direct), clock)
    for _ in range(60):
        await course.step()
    assert (await _audit(service))[-1].done
    await service.store.close()
    for attempt in range(25):
        copy = tmp_path / f"copy-{attempt}"
        shutil.copytree(tmp_path / "store", copy)
        number = _flip_entry(copy, dice)
        store = await open_store(f"lmdb://{copy}")
        last = (await _audit(CreditService(store, clock)))[-1]
        await store.close()
        shutil.rmtree(copy)
        assert last.difference.account_id == "alice"
        assert last.difference.entry_id == entry_name(number), (attempt, last)


def _flip_entry(directory: Path, dice: random.Random) -> int:
    """Changes one byte of one entry; gives the entry's number."""
    begin, end = ENTRIES.range("alice")
    with (
        lmdb.open(str(directory), map_size=1 << 30) as environment,
        environment.begin(write=True) as transaction,
    ):
        pairs = [pair for pair in transaction.cursor() if begin <= pair[0] < end]
        key, value = dice.choice(pairs)
        transaction.put(key, _flipped(value, dice))
    return int(ENTRIES.parts(key)[1])


def _flipped(value: bytes, dice: random.Random) -> bytes:
    """The value with one byte changed."""
    at = dice.randrange(len(value))
    return value[:at] + bytes([value[at] ^ dice.randrange(1, 256)]) + value[at + 1 :]


def _set(tx: Transaction, *, key: bytes, value: bytes) -> None:
    tx.set(key, value)
