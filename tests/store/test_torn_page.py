"""Files as a crash in the middle of a commit, a copy that was cut off, or a bad disk leaves them.

A crash leaves any mixture of what a commit wrote, in sectors, as long as its meta page is not
there: that is written behind a sync of all the rest. Such files open, with everything that was
acknowledged. Files that no crash leaves are refused with the way out, and never mapped: a page that
is mapped and not there would end the process by SIGBUS.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from tollmesh.credits.v1 import credits_pb2 as credits
from tollmesh.credits.v1 import ledger_pb2 as pb
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.credits.errors import ERRORS
from services.credits.ledger_servicer import LedgerServicer
from services.rpc.call import Call
from services.rpc.client import connect
from services.store.errors import StoreUnavailableError
from services.store.open import open_store
from tests.support.credit_service import Account, Clock, CreditService
from tests.support.ledger_audit import audit_account
from tests.support.service_process import run_to_its_end, running

PAGE, SECTOR, METAS = 4096, 512, 2
DATA = "data.mdb"
GRANT, OPENINGS, MIXTURES = 1_000_000, 6, 4
PROCESSES = 4
LARGE = 140
"""Debits that go to the data file at once; fewer go to the log, and there when it is closed."""
Files = dict[str, bytes]


@dataclass(frozen=True)
class Acknowledged:
    """A debit, and what it was answered."""

    request: credits.DebitRequest
    entry_id: str


class State(NamedTuple):
    """The files of a store at a moment, and what was acknowledged by then."""

    files: Files
    debits: tuple[Acknowledged, ...]

    @property
    def data(self) -> bytes:
        return self.files[DATA]


@pytest.fixture
async def states(tmp_path: Path, dice: random.Random) -> list[State]:
    """A store's files after each of some commits, and after it was closed in between."""
    found: list[State] = []
    directory = tmp_path / "written"
    debits: list[Acknowledged] = []
    for opening in range(OPENINGS):
        store = await open_store(f"lmdb://{directory}")
        alice = Account(CreditService(store, Clock()).direct)
        if not found:
            await alice.grant(GRANT)
            found.append(State(_files(directory), ()))
        counts = dice.choices([1, 2, 30], k=2)
        for count in (*counts, LARGE) if opening % 2 else counts:
            requests = [alice.debit_request(number, resource="r" * 250) for number in range(count)]
            batch = await alice.stub.BatchDebit(credits.BatchDebitRequest(debits=requests))
            for request, outcome in zip(requests, batch.outcomes, strict=True):
                debits.append(Acknowledged(request, outcome.debit.entry_id))
            found.append(State(_files(directory), tuple(debits)))
        await store.close()
        found.append(State(_files(directory), tuple(debits)))
    return found


async def test_whatever_a_crash_leaves_of_a_commit_what_was_acknowledged_is_there(
    states: Sequence[State], tmp_path: Path, dice: random.Random
) -> None:
    opened = 0
    for before, after in pairwise(states):
        if _transaction(after.data) != _transaction(before.data) + 1:
            continue  # nothing was written, or more than one commit
        for number, data in enumerate(_crashes(before.data, after.data, dice)):
            directory = tmp_path / f"crash-{opened}-{number}"
            _leave(directory, {**before.files, DATA: data})
            await _verify(directory, before.debits)
        opened += 1
    assert opened >= OPENINGS


async def test_a_commit_whose_meta_page_is_there_is_there(
    states: Sequence[State], tmp_path: Path, dice: random.Random
) -> None:
    """The meta page may be torn, too: all of it that is used stands in its first sector."""
    for number, (before, after) in enumerate(pairwise(states)):
        page = _transaction(after.data) % METAS
        data = bytearray(after.data)
        rest = slice(page * PAGE + SECTOR, (page + 1) * PAGE)
        data[rest] = before.data[rest] if dice.random() < 0.5 else dice.randbytes(PAGE - SECTOR)
        directory = tmp_path / f"torn-meta-{number}"
        _leave(directory, {**after.files, DATA: bytes(data)})
        await _verify(directory, after.debits)


async def test_a_file_that_was_cut_short_is_whole_or_refused(
    states: Sequence[State], tmp_path: Path, dice: random.Random
) -> None:
    last = states[-1]
    pages = len(last.data) // PAGE
    lengths = [PAGE * count for count in range(1, min(pages, 12))]
    lengths += [len(last.data) - PAGE, len(last.data) - 1, len(last.data) - PAGE // 2]
    lengths += [1, 100, PAGE + 1, PAGE + 100, *(dice.randrange(1, len(last.data)) for _ in "1234")]
    refused = 0
    for length in lengths:
        directory = tmp_path / f"cut-{length}"
        _leave(directory, {**last.files, DATA: last.data[:length]})
        try:
            await _verify(directory, last.debits)
        except StoreUnavailableError as error:
            refused += 1
            _check_refusal(str(error), directory)
    assert refused > len(lengths) // 2


async def test_garbage_in_the_meta_pages_is_refused(
    states: Sequence[State], tmp_path: Path, dice: random.Random
) -> None:
    last = states[-1]
    latest = _transaction(last.data) % METAS
    for number, (page, start, size) in enumerate(_places(latest)):
        data = bytearray(last.data)
        at = page * PAGE + start
        data[at : at + size] = _other(bytes(data[at : at + size]), dice)
        directory = tmp_path / f"garbage-{number}"
        _leave(directory, {**last.files, DATA: bytes(data)})
        with pytest.raises(StoreUnavailableError) as caught:
            await _verify(directory, last.debits)
        _check_refusal(str(caught.value), directory)
        # Put back from a copy, as the refusal says, it goes on.
        _leave(directory, last.files)
        await _verify(directory, last.debits)


async def test_a_file_in_which_everything_is_lost_is_no_new_store(
    states: Sequence[State], tmp_path: Path
) -> None:
    for name, data in (("zeros", bytes(len(states[-1].data))), ("meta", bytes(2 * PAGE))):
        _leave(tmp_path / name, {DATA: data})
        with pytest.raises(StoreUnavailableError, match=r"data\.mdb is damaged"):
            await open_store(f"lmdb://{tmp_path / name}")
        assert (tmp_path / name / DATA).read_bytes() == data


async def test_a_meta_page_that_lmdb_took_back_is_no_obstacle(
    states: Sequence[State], tmp_path: Path
) -> None:
    """When it cannot sync a new meta page it restores the last fields only, not the trees."""
    opened = 0
    for before, after in pairwise(states):
        if _transaction(after.data) == _transaction(before.data) + 1:
            start = _transaction(after.data) % METAS * PAGE
            data = bytearray(after.data)
            data[start + 136 : start + PAGE] = before.data[start + 136 : start + PAGE]
            _leave(tmp_path / f"{opened}", {**before.files, DATA: bytes(data)})
            await _verify(tmp_path / f"{opened}", before.debits)
            opened += 1
    assert opened >= OPENINGS


@pytest.mark.parametrize("left", [None, b""])
async def test_a_data_file_that_is_gone_or_empty_is_a_new_store_only_where_there_was_none(
    states: Sequence[State], tmp_path: Path, left: bytes | None
) -> None:
    """One that is killed as it makes its store leaves an empty file; that may be opened."""
    files = {**states[-1].files}
    del files[DATA]
    if left is not None:
        files[DATA] = left
    _leave(tmp_path / "lost", files)
    with pytest.raises(StoreUnavailableError) as caught:
        await open_store(f"lmdb://{tmp_path / 'lost'}")
    _check_refusal(str(caught.value), tmp_path / "lost")
    _leave(tmp_path / "new", {**files, "owner.lock": b""})
    store = await open_store(f"lmdb://{tmp_path / 'new'}")
    await store.close()


async def test_a_lock_file_that_is_garbage_is_no_obstacle(
    states: Sequence[State], tmp_path: Path, dice: random.Random
) -> None:
    """It says who reads, and nobody does when a store is opened."""
    for number, content in enumerate([b"", b"x", dice.randbytes(8192), bytes(8192)]):
        directory = tmp_path / str(number)
        _leave(directory, {**states[-1].files, "lock.mdb": content, "owner.lock": content})
        await _verify(directory, states[-1].debits)


async def test_the_service_opens_what_a_crash_left_and_refuses_what_was_cut_off(
    states: Sequence[State], tmp_path: Path, dice: random.Random
) -> None:
    """The real process: one line that says what to do, and no death by a signal."""
    before, after = next(
        (before, after)
        for before, after in pairwise(states[4:])
        if _transaction(after.data) == _transaction(before.data) + 1
    )
    directory = tmp_path / "store"
    settings = {"store": f"lmdb://{directory}", "face": "grpcio"}
    for data in islice(_crashes(before.data, after.data, dice), PROCESSES):
        _leave(directory, {**before.files, DATA: data})
        async with (
            running("credits", settings, tmp_path) as process,
            connect(process.address, errors=ERRORS) as channel,
        ):
            alice = Account(CreditServiceStub(channel))
            for debit in before.debits:
                again = await alice.stub.Debit(debit.request)
                assert (again.replayed, again.entry_id) == (True, debit.entry_id)
            await audit_account(alice.stub, "alice")
            assert await process.stop() == 0
    for data in (after.data[: 3 * PAGE], after.data[:PAGE], dice.randbytes(len(after.data))):
        _leave(directory, {**after.files, DATA: data})
        status, output = await run_to_its_end("credits", settings)
        assert status == 1, output
        (line,) = output.splitlines()
        _check_refusal(line, directory)


async def _verify(directory: Path, debits: Sequence[Acknowledged]) -> None:
    """The store opens with these debits, each once, goes on, and its audit is clean."""
    store = await open_store(f"lmdb://{directory}")
    try:
        service = CreditService(store, Clock())
        alice = Account(service.direct)
        for debit in debits:
            again = await alice.stub.Debit(debit.request)
            assert (again.replayed, again.entry_id) == (True, debit.entry_id)
        assert not (await alice.debit(1)).replayed
        audit = await audit_account(alice.stub, "alice")
        made = {entry.request_id: entry.entry_id for entry in audit.debits}
        assert all(made[debit.request.request_id] == debit.entry_id for debit in debits)
        servicer = LedgerServicer(service.ledger, store)
        *_, last = [part async for part in servicer.Audit(pb.AuditRequest(), Call("Audit"))]
        assert last.done, last
    finally:
        await store.close()


def _check_refusal(told: str, directory: Path) -> None:
    assert f"cannot open the store in {directory}: data.mdb is damaged: " in told
    assert "put the directory back from a backup" in told
    assert "tollmesh audit" in told


def _crashes(before: bytes, after: bytes, dice: random.Random) -> Iterator[bytes]:
    """Data files of a commit that did not come to its meta page."""
    meta = _transaction(after) % METAS
    changed = [
        start
        for start in range(0, len(after), PAGE)
        if start != meta * PAGE and after[start : start + PAGE] != before[start : start + PAGE]
    ]
    whole = before.ljust(len(after), b"\x00")
    yield whole
    yield _mixed(whole, after, [(start, PAGE) for start in changed])
    for _ in range(MIXTURES):
        some = [start for start in changed if dice.random() < 0.5]
        yield _mixed(before, after, [(start, PAGE) for start in some])
        sectors = [start + sector for start in changed for sector in range(0, PAGE, SECTOR)]
        torn = [(start, SECTOR) for start in sectors if dice.random() < 0.5]
        mixture = _mixed(whole, after, torn)
        yield mixture
        yield mixture[: dice.randrange(len(before), len(after) + 1)]
    if changed:
        yield _mixed(whole, after, [(changed[-1], dice.randrange(1, PAGE))])


def _mixed(old: bytes, new: bytes, places: Sequence[tuple[int, int]]) -> bytes:
    """The old bytes with the new ones at some places."""
    mixture = bytearray(old)
    for start, size in places:
        if len(mixture) < start:
            mixture.extend(bytes(start - len(mixture)))
        mixture[start : start + size] = new[start : start + size]
    return bytes(mixture)


def _transaction(data: bytes) -> int:
    """The number of the latest commit: the last field of either meta page."""
    numbers = [data[page * PAGE + 144 : page * PAGE + 152] for page in range(METAS)]
    return max(int.from_bytes(number, sys.byteorder) for number in numbers)


def _places(latest: int) -> Iterator[tuple[int, int, int]]:
    """Pages, places and sizes of garbage that must be noticed."""
    for page in range(METAS):
        yield page, 0, PAGE
        yield page, 0, SECTOR
        yield page, 16, 8  # magic and version
        yield page, 144, 8  # transaction
    yield latest, 40, 48  # the tree of free pages
    yield latest, 88, 48  # the tree of all else
    yield latest, 128, 8  # its root
    yield latest, 136, 8  # the last page


def _other(stored: bytes, dice: random.Random) -> bytes:
    while (garbage := dice.randbytes(len(stored))) == stored:
        pass
    return garbage


def _files(directory: Path) -> Files:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def _leave(directory: Path, files: Files) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
