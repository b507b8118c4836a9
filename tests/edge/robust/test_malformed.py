"""Ten thousand malformed requests: no 500, nothing hangs, nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import json
import random
import re
import socket
import struct
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from services.edge.http import exchange, server
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, until
from tests.support.deadline import DEADLINE_S
from tests.support.fake_chain import NETWORK
from tests.support.http_answers import RawAnswer, answers_in
from tests.support.malformed_http import SMUGGLED, Case, Malformed, Target

CASES = 10_000
PARALLEL = 32
WARM_UP = 1_000
BUSY = {503, 504}
"""What a machine with too much to do may answer, now and then."""
UNKNOWN = 501
"""Nobody has ever heard of the method."""
MEBIBYTE = 1024 * 1024


class _Seen:
    """What came of the cases."""

    def __init__(self) -> None:
        self.families: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.silent = 0

    def note(self, case: Case, answers: list[RawAnswer]) -> None:
        self.families[case.family] += 1
        self.silent += not answers
        self.statuses.update(answer.status for answer in answers)


async def _sent(edge: RunningEdge, case: Case) -> bytes:
    """Sends a case, and what came back until the connection ended."""
    reader, writer = await asyncio.open_connection(edge.host, edge.port, limit=MEBIBYTE)
    try:
        for piece in case.pieces:
            if writer.transport.is_closing():
                break  # the server has had enough
            writer.write(piece)
            if len(case.pieces) > 1:
                await asyncio.sleep(0)  # each by itself
        await writer.drain()
        if case.ending == "reset":
            await asyncio.sleep(0)
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return b""
        if case.ending == "finish":
            writer.write_eof()
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


async def _judge(edge: RunningEdge, case: Case, seen: _Seen) -> None:
    async with asyncio.timeout(DEADLINE_S):
        data = await _sent(edge, case)
    answers = answers_in(data)
    seen.note(case, answers)
    for answer in answers:
        assert answer.status < 500 or answer.status in BUSY | {UNKNOWN}, (case, answer)
        if answer.status >= 400 and answer.body.startswith(b"{") and answer.whole:
            assert SMUGGLED not in answer.body
            assert json.loads(answer.body)["status"] == answer.status


async def _throw(edge: RunningEdge, malformed: Malformed, numbers: range, seen: _Seen) -> None:
    left = iter(numbers)

    async def worker() -> None:
        for number in left:
            case = malformed.case(number)
            try:
                await _judge(edge, case, seen)
            except TimeoutError as error:
                raise AssertionError(f"hung: {case}") from error

    async with asyncio.TaskGroup() as workers:
        for _ in range(PARALLEL):
            workers.create_task(worker())


def _target(edge: RunningEdge, tenant: Tenant, cids: list[str], dice: random.Random) -> Target:
    routes = sorted(edge.edge._application._routes)
    places = {"network": [NETWORK, "evm-none", "Ä"], "cid": [*cids, "bafkr6i", "x"]}

    def filled(path: str) -> str:
        return re.sub(r"\{(\w+)[^}]*\}", lambda m: dice.choice(places.get(m[1], ["a", "b"])), path)

    paths = [filled(path) for _, path in routes for _ in range(8)]
    return Target(
        paths=[path.encode().decode("latin-1") for path in paths],
        objects=[object_path(cid) for cid in cids],
        methods=sorted({method for method, _ in routes} | {"OPTIONS", "PATCH", "TRACE", "CONNECT"}),
        credential=tenant.key,
    )


def _state(edge: RunningEdge) -> dict[str, int]:
    """Everything that must be as before."""
    gc.collect()
    state = edge.edge.http._server.server_state
    return {
        "tasks": len(asyncio.all_tasks()),
        "connections": len(state.connections),
        "requests": len(state.tasks),
        "settlements": len(edge.edge.holds._tasks),
        "accounts in flight": len(edge.edge.admission._in_flight),
    }


async def _as_before(edge: RunningEdge, before: dict[str, int]) -> None:
    """Waits until nothing is left of the cases: on a busy machine settlements are repeated."""
    ends_at = time.monotonic() + DEADLINE_S
    while any(_state(edge)[name] > count for name, count in before.items()):
        assert time.monotonic() < ends_at, f"{_state(edge)} instead of {before}"
        await asyncio.sleep(0.1)


def _descriptors() -> Counter[str]:
    """What this process has open, by what it is."""
    found: Counter[str] = Counter()
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that lists them
            name = entry.readlink().name.partition("[")[0]
            # The credit store's log, once a file was full, keeps another ready.
            found[name] += not name.startswith("redo-")
    return found


def _own_bytes() -> int:
    gc.collect()
    [line] = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("RssAnon:")
    ]
    return int(line.split()[1]) * 1024


@pytest.mark.timeout(240)
async def test_ten_thousand_malformed_requests_break_nothing(
    world: World, tenant: Tenant, dice: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What waits for more is given up soon, so that "hangs for ever" can be told apart.
    monkeypatch.setattr(server, "HEAD_TIMEOUT_S", 0.5)
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.5)
    monkeypatch.setattr(exchange, "BODY_IDLE_S", 0.5)
    cids = [world.chain.add(dice.randbytes(size)) for size in (1, 1_000, 100_000)]
    async with world.edge() as edge:
        malformed = Malformed(dice, _target(edge, tenant, cids, dice))
        for cid in cids * 2:  # the second time from the cache, whose files stay open
            await edge.get(object_path(cid), tenant)
            await edge.cached(cid)
        await edge.session.close()
        await until(lambda: not edge.edge.holds._tasks, "the downloads are paid")
        before, seen = _state(edge), _Seen()
        await _throw(edge, malformed, range(WARM_UP), seen)
        await _as_before(edge, before)
        warm, opened = _own_bytes(), _descriptors()
        await _throw(edge, malformed, range(WARM_UP, CASES), seen)
        await _as_before(edge, before)
        grown = _own_bytes() - warm
        print(  # noqa: T201 (figures)
            f"{sum(seen.families.values()):,} malformed requests, {seen.silent:,} not answered, "
            f"answers by status {dict(sorted(seen.statuses.items()))}, "
            f"{grown / MEBIBYTE:+.1f} MiB of memory"
        )
        assert sum(seen.families.values()) == CASES
        assert {200, 206, 304, 400, 401, 404, 405, 411, 416, UNKNOWN} <= set(seen.statuses), (
            "near the truth"
        )
        assert grown < 24 * MEBIBYTE
        await until(lambda: not _descriptors() - opened, "what was opened is closed")
    assert (await tenant.balance()).held == 0, "nothing is set aside any more"
    async with world.edge() as again:
        for cid in cids:
            answer = await again.get(object_path(cid), tenant)
            assert (answer.status, answer.body) == (200, world.chain.objects[cid].data)
