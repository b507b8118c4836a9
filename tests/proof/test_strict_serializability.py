"""Histories of real, concurrent calls are strictly serializable; planted faults are noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.credits.ledger import Ledger
from services.credits.servicer import CreditServicer
from services.process.envoy import why_not
from services.store.open import open_store
from tests.support.credit_service import Clock, CreditService
from tests.support.history import Call, History, Target
from tests.support.history_check import Violation, check
from tests.support.history_clients import ACCOUNTS, Clients, record
from tests.support.history_faults import FAULTS
from tests.support.store_homes import ProcessHome, open_home

CALLS = 120
FACES = ["grpcio"] if why_not() else ["grpcio", "envoy"]


@pytest.mark.parametrize("face", FACES)
async def test_a_history_of_a_service_that_is_killed_is_strictly_serializable(
    tmp_path: Path, seed: int, face: str
) -> None:
    history = await record(tmp_path, seed, calls=CALLS, kills=1, faces=[face])
    check(history)


@pytest.mark.fdb
async def test_a_history_of_two_services_on_one_cluster_is_strictly_serializable(
    tmp_path: Path, seed: int
) -> None:
    async with open_home("foundationdb", tmp_path, seed) as home:
        assert isinstance(home, ProcessHome)
        faces = [FACES[0], FACES[-1]]
        history = await record(tmp_path, seed, calls=CALLS, kills=2, faces=faces, store=home.url)
    check(history)


async def _history(
    directory: Path, seed: int, faulty: Callable[[Ledger], CreditServicer]
) -> History:
    """Of a server in this process, called over the loopback."""
    store = await open_store(f"lmdb://{directory / 'store'}")
    service = CreditService(store, Clock())
    service.servicers[0] = faulty(service.ledger)
    history, target = History(), Target()
    async with service.served() as stub:
        target.set(stub)
        await Clients(seed, history, target).run(CALLS // 2)
        await history.read_ledgers(stub, ACCOUNTS)
    await store.close()
    return history


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_service_with_a_fault_is_found_out(
    tmp_path: Path, seed: int, fault: Callable[[Ledger], CreditServicer]
) -> None:
    history = await _history(tmp_path, seed, fault)
    with pytest.raises(Violation, match=r"^(call|entry) ") as found:
        check(history)
    print(found.value)  # noqa: T201 (which operation it was)


def _last_debit(history: History) -> Call:
    """Of the first account, among those whose answer is known."""
    done = {e.request_id for e in history.ledgers[ACCOUNTS[0]]}
    return [c for c in history.calls if c.method == "Debit" and c.fresh and c.request_id in done][
        -1
    ]


def _lose_an_update(history: History) -> Call:
    call = _last_debit(history)
    ledger = history.ledgers[call.account_id]
    ledger[:] = [entry for entry in ledger if entry.request_id != call.request_id]
    return call


def _apply_twice(history: History) -> Call:
    call = _last_debit(history)
    ledger = history.ledgers[call.account_id]
    ledger += [entry for entry in ledger if entry.request_id == call.request_id]
    return call


def _answer_twice(history: History) -> Call:
    fresh = {call.request_id for call in history.calls if call.fresh}
    call = next(c for c in history.calls if c.answer and c.request_id in fresh and not c.fresh)
    call.answer.replayed = False  # type: ignore[union-attr]  # it has an answer
    return call


def _change_an_amount(history: History) -> Call:
    call = _last_debit(history)
    assert call.answer is not None
    call.answer.amount += 1
    return call


def _read_stale(history: History) -> Call:
    reads = [call for call in history.calls if call.method == "GetBalance" and call.answer]
    for late in reversed(reads):
        for early in reads:
            same = early.account_id == late.account_id
            if same and early.answer.balance != late.answer.balance:  # type: ignore[union-attr]  # both are answered
                late.answer.balance.CopyFrom(early.answer.balance)  # type: ignore[union-attr]  # both are answered
                return late
    raise AssertionError("the balance never changed")


def _refuse_wrongly(history: History) -> Call:
    refused = [c for c in history.calls if c.refusal and c.refusal[0] == "INSUFFICIENT_CREDIT"]
    call = next(c for c in refused if c.together is None)
    assert call.refusal is not None
    call.refusal[1]["available"] = "1000000"
    return call


def _read_an_old_version(history: History) -> Call:
    reads = [call for call in history.calls if call.method == "GetBalance" and call.answer]
    reads[-1].answer.version = reads[0].answer.version  # type: ignore[union-attr]  # both are answered
    return reads[-1]


def _reorder(history: History) -> Call:
    """Swaps the versions of two debits, one of which ended before the other began."""
    debits = [call for call in history.calls if call.method == "Debit" and call.fresh]
    early = debits[0]
    late = next(c for c in debits if c.start > early.end and c.version != early.version)
    assert early.answer is not None
    assert late.answer is not None
    early.answer.version, late.answer.version = late.answer.version, early.answer.version
    return early


def _run_too_early(history: History) -> Call:
    """Says that a mutation ended before one began that stands before it in the ledger."""
    ledger = history.ledgers[ACCOUNTS[0]]
    fresh = {call.request_id: call for call in history.calls if call.fresh}
    first, last = fresh[ledger[0].request_id], fresh[ledger[-1].request_id]
    last.start, last.end = first.start - 2, first.start - 1
    return last


PLANTED = [
    _lose_an_update,
    _apply_twice,
    _answer_twice,
    _change_an_amount,
    _read_stale,
    _refuse_wrongly,
    _read_an_old_version,
    _reorder,
    _run_too_early,
]


async def test_what_is_planted_in_a_history_is_found_and_named(tmp_path: Path, seed: int) -> None:
    sound = await _history(tmp_path, seed, CreditServicer)
    check(sound)
    for plant in PLANTED:
        history = sound.copy()
        call = plant(history)
        with pytest.raises(Violation) as found:
            check(history)
        assert str(call) in str(found.value), f"{plant.__name__} of {call}: {found.value}"
