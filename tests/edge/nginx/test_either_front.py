"""What holds alike for nginx and Caddy before a server of files."""

from __future__ import annotations

from tests.edge.conftest import Tenant, some_bytes, until
from tests.edge.nginx.conftest import Front, Origin

SIZE = 300_000


async def _all_reported(front: Front) -> None:
    await until(lambda: front.edge.edge.door.open_tickets == 0, "every ticket is reported")


async def test_ranges_conditions_and_heads_pay_for_their_bodies(
    either_front: Front, origin: Origin, tenant: Tenant
) -> None:
    front, path = either_front, origin.put("a", some_bytes(SIZE))
    whole = await front.get(path, tenant, "HEAD")
    assert (whole.status, whole.headers["Content-Length"]) == (200, str(SIZE))
    part = await front.get(path, tenant, Range="bytes=100-299")
    assert (part.status, len(part.body)) == (206, 200)
    same = await front.get(path, tenant, If_None_Match=whole.headers["ETag"])
    assert (same.status, same.body) == (304, b"")
    assert (await front.get(path, tenant, Range=f"bytes={SIZE}-")).status == 416
    assert (await front.get("/nothing", tenant)).status == 404
    await _all_reported(front)
    assert await tenant.paid_bytes() == [200]


async def test_an_upload_is_paid_by_its_size(either_front: Front, tenant: Tenant) -> None:
    data, headers = b"x" * 50_000, tenant.headers
    async with either_front.session.post("/taken", data=data, headers=headers) as response:
        assert await response.text() == "50000"
    await _all_reported(either_front)
    [paid] = await tenant.paid()
    assert (paid.metered.meter, paid.metered.quantity) == ("upload", 50_000)


async def test_while_no_edge_answers_it_is_503(
    either_front: Front, origin: Origin, tenant: Tenant
) -> None:
    await either_front.edge.stop()
    answer = await either_front.get(origin.put("a", b"a"), tenant)
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["reason"] == "DEPENDENCY_UNAVAILABLE"
    assert not origin.seen
