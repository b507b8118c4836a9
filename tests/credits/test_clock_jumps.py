"""The wall clock of a running service jumps: nothing is lost, done twice, or taken back.

The real process, over gRPC, with a clock that the test moves while it runs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from services.credits.errors import ERRORS, HoldNotOpenError, InsufficientCreditError
from services.rpc.client import connect
from services.rpc.errors import InvalidArgumentError
from tests.support.credit_service import Account, metered, stub_of
from tests.support.deadline import DEADLINE_S
from tests.support.jumping_credits import CLOCK_FILE, WallClock
from tests.support.ledger_audit import audit_account
from tests.support.seeds import chosen_seed
from tests.support.service_process import running

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub

HOUR_S = 3600
DAY_S = 24 * HOUR_S
TARIFF = {
    "download": {"miss": "1"},
    "scan": {"miss": "1", "free": 10, "free_period": "month"},
}
JUMPS, CLIENTS = 25, 6


@pytest.fixture
def wall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WallClock:
    monkeypatch.setenv(CLOCK_FILE, str(tmp_path / "clock"))
    clock = WallClock(tmp_path / "clock")
    clock.set_ahead(0)
    return clock


@pytest.fixture
async def stub(tmp_path: Path, wall: WallClock) -> AsyncIterator[CreditServiceAsyncStub]:
    async with _service(tmp_path, wall) as stub:
        yield stub


@pytest.fixture
def alice(stub: CreditServiceAsyncStub) -> Account:
    return Account(stub, "alice")


@asynccontextmanager
async def _service(directory: Path, wall: WallClock) -> AsyncIterator[CreditServiceAsyncStub]:
    del wall  # must be there first
    settings = {
        "store": f"lmdb://{directory}/store",
        "tariff": json.dumps(TARIFF),
        "sweep_s": "0.02",
        "face": "grpcio",
    }
    module = "tests.support.jumping_credits"
    async with (
        running("credits", settings, directory, module=module) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        yield stub_of(channel)


@pytest.mark.parametrize("hours", [25, 24 * 40, -25, -24 * 40])
async def test_a_request_that_is_repeated_after_a_jump_and_back_is_done_once(
    alice: Account, wall: WallClock, hours: int
) -> None:
    """A jump that swept its record, or made it look old from the start, would bill it twice."""
    await alice.grant(100)
    before = alice.debit_request(7)
    await alice.stub.Debit(before)
    wall.jump(hours * HOUR_S)
    during = alice.debit_request(5)
    await alice.stub.Debit(during)
    await _swept(alice.stub, wall)
    for request in (before, during):
        assert (await alice.stub.Debit(request)).replayed
    wall.jump(-hours * HOUR_S)
    await _swept(alice.stub, wall)
    for request in (before, during):
        assert (await alice.stub.Debit(request)).replayed
    assert (await _audited(alice.stub, "alice")).balance.spent == 12


async def test_a_jump_is_a_line_of_the_log(tmp_path: Path, wall: WallClock) -> None:
    def logged(event: str) -> list[float]:
        lines = (tmp_path / "credits.log").read_text().splitlines()
        return [line["seconds"] for line in map(json.loads, lines) if line["event"] == event]

    async with _service(tmp_path, wall) as stub:
        await _swept(stub, wall)
        assert not logged("clock_jumped")
        for number, jump_s in enumerate([DAY_S, -3 * DAY_S]):
            wall.jump(jump_s)
            await _until(lambda number=number: _has(logged("clock_jumped"), number + 1))  # type: ignore[misc]  # bound
    assert [round(seconds / DAY_S) for seconds in logged("clock_jumped")] == [1, -3]
    assert not logged("clock_behind")
    async with _service(tmp_path, wall):
        await _until(lambda: _has(logged("clock_behind"), 1))
    assert round(logged("clock_behind")[0] / DAY_S) == 2


async def test_a_start_with_a_wrong_clock_forgets_no_request(
    tmp_path: Path, wall: WallClock
) -> None:
    async with _service(tmp_path, wall) as stub:
        alice = Account(stub)
        await alice.grant(100)
        request = alice.debit_request(7)
        await stub.Debit(request)
    for days in (400, -400, 0):
        wall.set_ahead(days * DAY_S)
        async with _service(tmp_path, wall) as stub:
            await _swept(stub, wall)
            assert (await stub.Debit(request)).replayed
            assert (await _audited(stub, "alice")).balance.spent == 7


@pytest.mark.parametrize("hours", [25, -25])
async def test_a_closed_hold_is_known_after_a_jump_and_back(
    alice: Account, wall: WallClock, hours: int
) -> None:
    """So its late capture is still settled, and a second release told what happened."""
    await alice.grant(100)
    released = (await alice.reserve(10)).hold
    expiring = (await alice.reserve(20, seconds=0.01)).hold
    if hours > 0:
        await alice.release(released)
    wall.jump(hours * HOUR_S)
    if hours < 0:
        await alice.release(released)
    await _swept(alice.stub, wall)
    wall.jump(-hours * HOUR_S)
    await _swept(alice.stub, wall)
    with pytest.raises(HoldNotOpenError):
        await alice.release(released)
    await _until(lambda: _is_expired(alice, expiring))
    assert (await alice.capture(expiring, 15)).amount == 15
    assert (await _audited(alice.stub, "alice")).balance.spent == 15


async def test_what_expires_in_a_jump_expires_once_and_stays_expired(
    alice: Account, wall: WallClock
) -> None:
    expire_time = _timestamp(wall.now_us() / 1e6 + HOUR_S)
    await alice.grant(40, expire_time=expire_time)
    await alice.grant(100)
    hold = (await alice.reserve(60, seconds=600)).hold
    for _ in range(3):
        wall.jump(DAY_S)
        await _swept(alice.stub, wall)
        wall.jump(-DAY_S)
        await _swept(alice.stub, wall)
        balance = (await alice.balance()).balance
        assert (balance.available, balance.held, balance.expired) == (100, 0, 40)
    assert (await alice.get_hold(hold)).state == pb.HOLD_STATE_EXPIRED
    audit = await _audited(alice.stub, "alice")
    kinds = Counter(entry.kind for entry in audit.entries)
    assert kinds[pb.ENTRY_KIND_RELEASE] == 1
    assert kinds[pb.ENTRY_KIND_EXPIRE_GRANT] == 1


async def test_a_jump_backwards_expires_nothing_early_and_keeps_deadlines_and_leases(
    alice: Account, wall: WallClock
) -> None:
    await alice.grant(100)
    lease = (await alice.open_lease(30, seconds=600)).hold
    wall.jump(-DAY_S)
    hold = (await alice.reserve(10, seconds=600)).hold
    settled = await alice.settle(lease, 5, target_amount=30)
    assert settled.hold.state == pb.HOLD_STATE_OPEN
    # Calls end by their deadlines, which no wall clock concerns: these have five seconds each.
    assert (await alice.debit(1)).balance.held == 40
    await _swept(alice.stub, wall)
    wall.jump(DAY_S)
    await _swept(alice.stub, wall)
    # What was reserved in the past for ten minutes is over in the present; a lease goes on.
    await _until(lambda: _is_expired(alice, hold))
    assert (await alice.settle(lease, 7, final=True)).hold.captured == 12
    audit = await _audited(alice.stub, "alice")
    assert (audit.balance.spent, audit.balance.held) == (13, 0)


async def test_each_period_is_refilled_once_however_often_its_end_passes(
    alice: Account, wall: WallClock
) -> None:
    months = [_moment(2031, 1, 31, 12), _moment(2031, 2, 28, 12), _moment(2031, 3, 31, 12)]
    wall.set_to(months[0])
    monthly = pb.Recurrence(period=pb.REFILL_PERIOD_MONTH)
    await alice.grant(100, recurrence=monthly)
    seen = [months[1] + HOUR_S, months[0], months[1] - HOUR_S, months[1] + HOUR_S]
    for moment in seen:
        wall.set_to(moment)
        await _swept(alice.stub, wall)
        assert (await alice.balance()).balance.available == 100
    assert await _refills(alice) == 1
    for moment in (months[2] + HOUR_S, months[0], months[2] + 2 * HOUR_S):
        wall.set_to(moment)
        await _swept(alice.stub, wall)
    assert await _refills(alice) == 2
    await _audited(alice.stub, "alice")


async def test_usage_and_allowances_count_each_debit_once_in_the_month_that_the_clock_showed(
    alice: Account, wall: WallClock
) -> None:
    await alice.grant(1000)
    end = _moment(2031, 2, 1)
    wall.set_to(end - HOUR_S)
    january = [await alice.debit(metered=metered("scan", 8)) for _ in range(2)]
    wall.set_to(end + HOUR_S)
    february = [await alice.debit(metered=metered("scan", 8)) for _ in range(2)]
    wall.set_to(end - HOUR_S)
    january += [await alice.debit(metered=metered("scan", 8))]
    assert [answer.amount for answer in january] == [0, 6, 8]
    assert [answer.amount for answer in february] == [0, 6]
    lines = await alice.usage(period=pb.USAGE_PERIOD_MONTH)
    assert [(line.quantity, line.free_quantity, line.amount) for line in lines] == [
        (24, 10, 14),
        (16, 10, 6),
    ]
    (whole,) = await alice.usage()
    assert (whole.quantity, whole.amount) == (40, 20)
    await _audited(alice.stub, "alice")


async def test_in_any_course_of_jumps_the_books_agree_and_each_request_is_done_once(
    stub: CreditServiceAsyncStub, wall: WallClock
) -> None:
    seed = chosen_seed()
    dice, course = random.Random(seed), _Course(stub, wall)
    clients = [
        asyncio.create_task(course.client(random.Random(dice.random()), number))
        for number in range(CLIENTS)
    ]
    try:
        for _ in range(JUMPS):
            done = course.calls
            await _until(lambda done=done: _at_least(course, done + 20))  # type: ignore[misc]  # bound
            unit = dice.choice([60, HOUR_S, DAY_S, 31 * DAY_S])
            wall.set_ahead(dice.choice([-1, -0.5, 0, 0.5, 1, 1.5]) * unit)
    finally:
        course.ended = True
    await asyncio.gather(*clients)
    wall.set_ahead(0)
    await course.verify()


class _Course:
    """Clients, and what they were told."""

    def __init__(self, stub: CreditServiceAsyncStub, wall: WallClock) -> None:
        self.stub, self.wall = stub, wall
        self.ended, self.calls = False, 0
        self.done: list[tuple[str, Any, Any]] = []

    async def client(self, dice: random.Random, number: int) -> None:
        """Calls until the end, about accounts that clients share; versions only rise."""
        account, version = Account(self.stub, f"account-{number % 3}"), 0
        await account.grant(10_000)
        while not self.ended:
            method, request = self._call(account, dice)
            self.calls += 1
            try:
                answer = await getattr(self.stub, method)(request)
            except (InsufficientCreditError, InvalidArgumentError):
                continue  # the second one: a grant that the jump made too late
            assert int(answer.version) > version
            version = int(answer.version)
            self.done.append((method, request, answer))
            read = await account.balance(at_least_version=answer.version)
            assert int(read.version) >= version

    def _call(self, account: Account, dice: random.Random) -> tuple[str, Any]:
        ids: dict[str, Any] = {"request_id": f"course-{self.calls}-{dice.random()}"}
        ids["account_id"] = account.account_id
        kind = dice.randrange(6)
        if kind == 0:
            moment = _timestamp(self.wall.now_us() / 1e6 + dice.choice([5, HOUR_S, DAY_S]))
            return "Grant", pb.GrantRequest(amount=50, expire_time=moment, **ids)
        if kind == 1:
            daily = pb.Recurrence(period=pb.REFILL_PERIOD_DAY, max_rollover=3)
            return "Grant", pb.GrantRequest(amount=5, recurrence=daily, **ids)
        if kind == 2:
            reserve = pb.ReserveRequest(amount=3, **ids)
            reserve.time_to_live.seconds = dice.choice([1, 600])
            return "Reserve", reserve
        if kind == 3:
            return "Debit", pb.DebitRequest(metered=metered("scan", 4), **ids)
        return "Debit", pb.DebitRequest(amount=dice.randrange(9), **ids)

    async def verify(self) -> None:
        """Each answer again, and every account's books."""
        assert len(self.done) > JUMPS
        for method, request, answer in self.done:
            again = await getattr(self.stub, method)(request)
            assert again.replayed, request
            assert again.balance == answer.balance
        made = set()
        for account_id in sorted({request.account_id for _, request, _ in self.done}):
            audit = await _audited(self.stub, account_id)
            made |= {entry.request_id for entry in audit.entries}
        assert made >= {request.request_id for _, request, _ in self.done}


_witnesses = itertools.count()


async def _swept(stub: CreditServiceAsyncStub, wall: WallClock) -> None:
    """Waits until whole sweeps have gone by since now, by what they do to other accounts."""
    for _ in range(3):
        witness = Account(stub, f"witness-{next(_witnesses)}-{wall.ahead_s}")
        await witness.grant(1)
        await witness.reserve(1, seconds=0.001)

        async def is_released(account_id: str = witness.account_id) -> bool:
            # An export settles nothing itself, unlike a look at the balance.
            request = ledger_pb2.ExportEntriesRequest(account_id=account_id)
            export = cast("Any", stub).ExportEntries(request)
            entries: list[int] = [part.entries async for part in export]
            return sum(entries) == 3

        await _until(is_released)


async def _until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 (of another process)
            await asyncio.sleep(0.01)


async def _is_expired(account: Account, hold: pb.Hold) -> bool:
    return (await account.get_hold(hold)).state == pb.HOLD_STATE_EXPIRED


async def _has(lines: list[float], count: int) -> bool:
    return len(lines) >= count


async def _at_least(course: _Course, calls: int) -> bool:
    return course.calls >= calls


async def _refills(account: Account) -> int:
    kinds = [entry.kind for entry in await account.entries()]
    return kinds.count(pb.ENTRY_KIND_REFILL_GRANT)


async def _audited(stub: CreditServiceAsyncStub, account_id: str) -> Any:  # noqa: ANN401 (an Audit)
    """The account's books, which are right by what callers see and by the service's own audit."""
    *_, last = [part async for part in cast("Any", stub).Audit(ledger_pb2.AuditRequest())]
    assert last.done, last
    return await audit_account(stub, account_id)


def _moment(year: int, month: int, day: int, hour: int = 0) -> float:
    return datetime(year, month, day, hour, tzinfo=UTC).timestamp()


def _timestamp(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromMicroseconds(round(seconds * 1_000_000))
    return moment
