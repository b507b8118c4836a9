"""What clients say in a front's own words: the front takes it away, or the edge heeds it not."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from services.edge.door.captures import Captures
from services.edge.door.door import CaptureOutcome, Door
from services.edge.door.log_lines import LineMalformedError, delivered
from tests.edge.conftest import Tenant, World, object_path, some_bytes, until
from tests.edge.nginx.conftest import PREFIX, Front, Origin
from tests.support.nginx import Nginx
from tests.support.raw_http import RawClient

SIZE = 300_000
NOUGHTS = "0" * 5000
FORGED: Sequence[dict[str, str]] = (
    {"X_Original_Method": "HEAD", "X_Forwarded_Method": "HEAD"},
    {"X_Original_URI": "/other", "X_Forwarded_Uri": "/other"},
    {"X_Original_Host": "other", "Forwarded": "host=other"},
    {"Tollmesh_Meter": "upload"},
    {"Tollmesh_Estimate": "0"},
    {"Tollmesh_Estimate": "no number"},
    {"Tollmesh_Ticket": "mine", "Tollmesh_Account": "acc-of-another", "Tollmesh_Request": "mine"},
    {"Content_Length": "00"},
    {"Content_Length": NOUGHTS},
)
SPELLINGS = (
    *("/{first}/{rest}", "//{first}/{rest}", "/{first}//{rest}", "/./{first}/{rest}"),
    *("/x/../{first}/{rest}", "/{first}/x/../{rest}", "/{first}/../{first}/{rest}"),
    *("/{coded}/{rest}", "/{first}%2F{rest}", "/%2F{first}/{rest}", "/x/..%2f{first}/{rest}"),
    *("/x/%2e%2e/{first}/{rest}", "/{first};x/{rest}", "/{first}%3B/{rest}", "/{first}/{rest}?x"),
    *("/{first}%00/{rest}", "/{first}\\{rest}", "/{first}/{rest}#x", "http://edge/{first}/{rest}"),
    *("http://edge//{first}/{rest}", "/{first}%252F{rest}", "/{first}/{rest}/."),
)


async def _all_reported(front: Front) -> None:
    await until(lambda: front.edge.edge.door.open_tickets == 0, "every ticket is reported")


@pytest.mark.parametrize("forged", FORGED, ids="-".join)
async def test_what_a_client_forges_changes_nothing(
    either_front: Front, origin: Origin, world: World, tenant: Tenant, forged: dict[str, str]
) -> None:
    path = origin.put("a", some_bytes(SIZE))
    poor = await world.tenant(credit=3)
    assert (await either_front.get(path, poor, **forged)).status == 402
    answer = await either_front.get(path, tenant, **forged)
    assert (answer.status, len(answer.body)) == (200, SIZE)
    await _all_reported(either_front)
    [entry] = await tenant.paid()
    assert (entry.metered.meter, entry.metered.quantity) == ("download", SIZE)
    assert entry.resource.startswith("127.0.0.1")
    assert entry.resource.endswith("/a")
    [request] = origin.seen
    assert request.headers["Tollmesh-Account"] == tenant.account_id


async def test_a_range_that_may_not_be_heeded_is_no_estimate(
    either_front: Front, origin: Origin, world: World
) -> None:
    path = origin.put("a", some_bytes(SIZE))
    poor = await world.tenant(credit=3)
    wanted = {"Range": "bytes=0-9"}
    assert (await either_front.get(path, poor, **wanted)).status == 206
    assert (await either_front.get(path, poor, **wanted, If_Range='"another"')).status == 402
    async with either_front.session.post("/taken", headers=poor.headers | wanted) as response:
        assert response.status == 402
    await _all_reported(either_front)


async def test_a_head_is_free_and_the_server_learns_whose_it_is(
    either_front: Front, origin: Origin, tenant: Tenant
) -> None:
    path = origin.put("a", some_bytes(SIZE))
    answer = await either_front.get(path, tenant, "HEAD", Tollmesh_Account="acc-of-another")
    assert (answer.status, answer.headers.get("Tollmesh-Available", "")) == (200, "")
    [request] = origin.seen
    assert request.headers["Tollmesh-Account"] == tenant.account_id
    assert await tenant.paid() == []


async def test_the_log_has_no_key(
    either_front: Front, origin: Origin, tenant: Tenant, nginx_home: Path
) -> None:
    path = origin.put("a", b"a")
    await either_front.get(path, tenant)
    await either_front.get(path, X_API_Key=tenant.key)
    await _all_reported(either_front)
    log = (nginx_home / "tollmesh.log").read_text()
    assert len(log.splitlines()) == 2
    assert tenant.key not in log


async def test_no_spelling_leads_to_the_door_or_to_a_file(
    world: World, accelerated: Front, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(1000))
    await accelerated.get(object_path(cid), tenant)
    await accelerated.edge.cached(cid)
    await _all_reported(accelerated)
    file = accelerated.edge.edge.disk.file_of(cid)
    fields = [("Host", "edge"), ("X-API-Key", tenant.key), ("X-Forwarded-Uri", "/a")]
    assert isinstance(accelerated.nginx, Nginx)
    client = RawClient("127.0.0.1", accelerated.nginx.port)
    for first, rest in (("door", "authorize"), (PREFIX.strip("/"), file)):
        for spelling in SPELLINGS:
            coded = f"%{ord(first[0]):x}{first[1:]}"
            target = spelling.format(first=first, rest=rest, coded=coded)
            answer = await asyncio.to_thread(client.ask, "GET", target, fields)
            assert answer.status in {400, 404}, target
    client.close()
    assert accelerated.edge.edge.door.open_tickets == 0


async def test_noughts_before_a_length_make_no_hit_free(
    world: World, accelerated: Front, tenant: Tenant
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    for _ in range(2):
        answer = await accelerated.get(object_path(cid), tenant, Content_Length="00")
        assert (answer.status, len(answer.body)) == (200, SIZE)
        await accelerated.edge.cached(cid)
    await _all_reported(accelerated)
    assert await tenant.paid_bytes() == [SIZE, SIZE]


@pytest.mark.parametrize("text", ["-1", "1e3", "", " 1", "٣", "1" * 21])
def test_what_is_no_count_is_malformed(text: str) -> None:
    with pytest.raises(LineMalformedError):
        delivered(f'{{"ticket": "x", "sent_bytes": "{text}"}}')


@pytest.mark.parametrize(("text", "count"), [("0", 0), (NOUGHTS, 0), (NOUGHTS + "12", 12)])
def test_a_count_may_begin_with_noughts(text: str, count: int) -> None:
    assert delivered(f'{{"status": "200", "sent_bytes": "{text}"}}').total_bytes == count
    assert delivered(f'{{"status": "000", "sent_bytes": "{text}"}}').total_bytes == 0


class _Startled(Door):
    """A door that fails at the first report."""

    def __init__(self) -> None:
        self.reports: list[str] = []

    def capture(self, ticket_id: str, sent_bytes: int, *, final: bool) -> CaptureOutcome:
        del sent_bytes, final
        self.reports.append(ticket_id)
        if len(self.reports) == 1:
            raise ArithmeticError
        return CaptureOutcome.SETTLED


async def test_a_line_that_fails_keeps_no_other_from_being_read(tmp_path: Path) -> None:
    door = _Startled()
    await Captures(door, None, tmp_path).take([b'{"ticket": "a"}', b'{"ticket": "b"}'])
    assert door.reports == ["a", "b"]
