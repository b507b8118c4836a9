"""Pins by time: each period paid once, ahead, whatever happens in between."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tollmesh.credits.v1 import credits_pb2
from tollmesh.edge.v1 import edge_pb2

from services.edge.cache.catalog import Catalog
from services.edge.cache.pin_records import Due, Pin, PinRecords
from services.edge.cache.schema import VERSIONS
from services.edge.credit.ledger import Ledger
from services.edge.objects import ObjectKey
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.fake_chain import NETWORK, cid_of

HOUR_S = 3600.0
PERIOD_S = 1000 * HOUR_S
GRACE_S = 100 * HOUR_S
SIZE = 737_280
PRICE = 1000
"""Of a period of an object of that size, by the default tariff: a credit an hour."""
FIRST_SCHEMA = "f7d9f0a70ea651bd979025538abef2aff57abce06871ff73f96c8e787f7207ea"
LONG = {"pin_period_s": PERIOD_S, "pin_grace_s": GRACE_S}


async def pin(edge: RunningEdge, tenant: Tenant, cid: str) -> dict[str, Any]:
    answer = await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
    assert answer.status in {200, 201}, answer.body
    return answer.json()


async def listed(edge: RunningEdge, tenant: Tenant) -> list[dict[str, Any]]:
    answer = await edge.get("/pins", tenant)
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json()["pins"]
    return found


async def amounts(tenant: Tenant) -> list[int]:
    return [entry.amount for entry in await tenant.paid()]


def only_pin(edge: RunningEdge) -> Pin:
    [found] = edge.edge.pins.all()
    return found


async def renew(edge: RunningEdge, now: float) -> None:
    await edge.edge.upkeep.keeper.renew(now)


async def test_a_period_is_paid_ahead_and_so_is_the_next(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        began = time.time()
        await pin(edge, tenant, cid)
        assert await amounts(tenant) == [PRICE]
        first = only_pin(edge)
        assert began + PERIOD_S <= first.paid_until <= time.time() + PERIOD_S
        await renew(edge, first.paid_until - 2 * HOUR_S)
        assert await amounts(tenant) == [PRICE], "it is not time yet"
        await renew(edge, first.paid_until - HOUR_S / 2)
        await renew(edge, first.paid_until - HOUR_S / 2)
        assert await amounts(tenant) == [PRICE, PRICE]
        assert only_pin(edge).paid_until == first.paid_until + PERIOD_S
        [entry, again] = await tenant.paid()
        assert entry.resource == again.resource == f"{NETWORK}/{cid}"
        assert again.metered.quantity == SIZE * 1000


async def test_the_edge_renews_by_itself(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(pin_period_s=1.0) as edge:
        await pin(edge, tenant, cid)

        async def paid_thrice() -> bool:
            return len(await tenant.paid()) >= 3

        await until(paid_thrice, "three periods are paid")
        await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "DELETE")
        paid = await tenant.paid()
    assert await tenant.paid() == paid, "nothing is paid once it is unpinned"
    assert len({entry.request_id for entry in paid}) == len(paid)


async def test_without_credit_an_object_stays_for_the_time_of_grace(world: World) -> None:
    tenant = await world.tenant(credit=PRICE + 1)
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        await pin(edge, tenant, cid)
        assert [each["state"] for each in await listed(edge, tenant)] == ["paid"]
        end = only_pin(edge).paid_until
        await renew(edge, end - 1)
        [unpaid] = await listed(edge, tenant)
        assert unpaid["state"] == "unpaid"
        assert only_pin(edge).paid_until == end
        await renew(edge, end + GRACE_S - 1)
        assert await listed(edge, tenant), "the time of grace is not over"
        await renew(edge, end + GRACE_S)
        assert await listed(edge, tenant) == []
        assert edge.edge.pins.used_bytes == 0
        answer = await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "DELETE")
        assert answer.json()["reason"] == "PIN_NOT_FOUND"
    assert await amounts(tenant) == [PRICE]
    async with world.edge(**LONG) as edge:
        assert await listed(edge, tenant) == [], "it was not only in memory"


async def test_credit_that_comes_in_time_pays_the_period_from_its_start(world: World) -> None:
    tenant = await world.tenant(credit=PRICE)
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        await pin(edge, tenant, cid)
        end = only_pin(edge).paid_until
        await renew(edge, end)
        grant = credits_pb2.GrantRequest(
            request_id="late", account_id=tenant.account_id, amount=PRICE
        )
        await world.credits.Grant(grant)
        await renew(edge, end + GRACE_S / 2)
        assert only_pin(edge).paid_until == end + PERIOD_S
        assert [each["state"] for each in await listed(edge, tenant)] == ["paid"]
    assert await amounts(tenant) == [PRICE, PRICE]


async def test_a_clock_that_jumps_bills_no_period_twice(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        await pin(edge, tenant, cid)
        end = only_pin(edge).paid_until
        for now in (end, 0.0, end + 5, end - PERIOD_S, 0.0, end + HOUR_S):
            await renew(edge, now)
        assert await amounts(tenant) == [PRICE, PRICE]
        far = end + 10 * PERIOD_S
        await renew(edge, far)
        assert await amounts(tenant) == [PRICE] * 3, "the time that was jumped over is free"
        for now in (end + PERIOD_S, far, far + PERIOD_S / 2):
            await renew(edge, now)
        assert await amounts(tenant) == [PRICE] * 3


class CrashError(Exception):
    """The process ends here."""


Step = Callable[..., Awaitable[Any]]


def crashing(step: Step, *, after: bool) -> Step:
    """A step before or behind which the process ends."""

    async def crash(*values: Any, **named: Any) -> Any:  # noqa: ANN401 (whatever the step takes)
        if after:
            await step(*values, **named)
        raise CrashError

    return crash


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("owner", "step"), [(PinRecords, "put"), (Ledger, "debit")], ids=["recorded", "debited"]
)
@pytest.mark.parametrize("renewing", [False, True], ids=["first", "next"])
async def test_a_crash_at_any_step_bills_a_period_once_or_not_at_all(
    world: World,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    step: str,
    *,
    after: bool,
    renewing: bool,
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        end = 0.0
        if renewing:
            await pin(edge, tenant, cid)
            end = only_pin(edge).paid_until
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, crashing(getattr(owner, step), after=after))
            with suppress(CrashError):
                if renewing:
                    await renew(edge, end)
                else:
                    await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
    async with world.edge(**LONG) as edge:
        await renew(edge, end or time.time())
        await renew(edge, end or time.time())
        periods = 1 + renewing if edge.edge.pins.all() else 0
        assert await amounts(tenant) == [PRICE] * periods
        if renewing:
            assert only_pin(edge).paid_until == end + PERIOD_S
        elif periods:
            assert (await pin(edge, tenant, cid))["amount"] == 0
            assert await amounts(tenant) == [PRICE]


async def test_a_debit_whose_answer_is_lost_is_found_again_even_days_later(
    world: World, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "debit", crashing(Ledger.debit, after=True))
            await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT")
        assert await amounts(tenant) == [PRICE]
        with monkeypatch.context() as patch:  # the credit service would not know the id any more
            patch.setattr(Ledger, "debit", crashing(Ledger.debit, after=False))
            assert (await pin(edge, tenant, cid))["paid_until"]
        assert only_pin(edge).due is None
    assert await amounts(tenant) == [PRICE]


async def test_a_first_period_that_cannot_be_paid_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody spends the credit between the fetch and the debit."""
    poor = await world.tenant(credit=PRICE)
    cid = world.chain.add(some_bytes(SIZE))
    debit = Ledger.debit

    async def spend_first(ledger: Ledger, *values: Any, **named: Any) -> int:  # noqa: ANN401 (as it takes)
        spending = credits_pb2.DebitRequest(
            request_id="spent", account_id=poor.account_id, amount=1
        )
        await world.credits.Debit(spending)
        return await debit(ledger, *values, **named)

    async with world.edge(**LONG) as edge:
        monkeypatch.setattr(Ledger, "debit", spend_first)
        path = f"/pins/{NETWORK}/{cid}"
        refused = await edge.get(path, poor, "PUT", Idempotency_Key="k")
        assert (refused.status, refused.json()["reason"]) == (402, "INSUFFICIENT_CREDIT")
        assert edge.edge.pins.used_bytes == 0
        assert await listed(edge, poor) == []
        again = await edge.get(path, poor, "PUT", Idempotency_Key="k")
        assert again.status == 402, "the refused request is not remembered as done"


async def test_a_pinned_object_that_got_lost_is_fetched_again(world: World, tenant: Tenant) -> None:
    data = some_bytes(SIZE)
    cid = world.chain.add(data)
    async with world.edge(**LONG) as edge:
        await pin(edge, tenant, cid)
        await edge.edge.disk.drop(cid)
        await edge.edge.upkeep.keeper.restore()
        assert edge.edge.disk.info(cid) is not None
        assert (await edge.get(object_path(cid), tenant)).body == data
    assert world.chain.reads == [(cid, 0, SIZE)] * 2


async def test_pins_are_listed_for_their_account_alone(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    other = await world.tenant()
    cids = [world.chain.add(some_bytes(1000)) for _ in range(3)]
    for cid in cids:
        await pin(edge, tenant, cid)
    await pin(edge, other, cids[0])
    assert [each["cid"] for each in await listed(edge, tenant)] == cids
    assert [each["cid"] for each in await listed(edge, other)] == cids[:1]
    page = await edge.stub.ListPins(edge_pb2.ListPinsRequest(page_size=2), metadata=tenant.metadata)
    rest = await edge.stub.ListPins(
        edge_pb2.ListPinsRequest(page_size=2, page_token=page.next_page_token),
        metadata=tenant.metadata,
    )
    found = [*page.pins, *rest.pins]
    assert [each.cid for each in found] == cids
    assert rest.next_page_token == ""
    assert all(each.paid_until.seconds > time.time() for each in found)
    assert (await edge.get("/pins")).status == 401


def old_catalog(path: Path, cid: str) -> None:
    """A catalog as the release before wrote it, with a pin of 5 bytes that was paid once."""
    database = sqlite3.connect(path)
    database.executescript(f"BEGIN; {VERSIONS[0]} PRAGMA user_version = 1; COMMIT;")
    database.execute("INSERT INTO pins VALUES ('acc_x', 'net', ?, 5)", (cid,))
    database.execute(
        "INSERT INTO objects VALUES (NULL, ?, 5, 'name', 'text/plain', 0, 0, 'file', x'00')", (cid,)
    )
    database.commit()
    database.close()


async def test_a_catalog_of_the_release_before_is_brought_up_to_date(tmp_path: Path) -> None:
    path, cid = tmp_path / "catalog.sqlite3", cid_of(b"hello")
    old_catalog(path, cid)
    for _ in range(2):
        catalog = Catalog(path)
        await catalog.open()
        records = PinRecords(catalog)
        [found] = await records.all()
        assert (found.account_id, found.key, found.size_bytes) == (
            "acc_x",
            ObjectKey("net", cid),
            5,
        )
        assert (found.due, found.refused_since) == (None, None)
        days = (found.paid_until - time.time()) / 86_400
        assert 29.9 < days <= 30, "what was paid once counts for a month from now"
        [stored] = await catalog.objects()
        assert stored.info.cid == cid
        assert await records.edge_id()
        await catalog.close()


async def test_the_first_version_of_the_catalog_is_never_changed() -> None:
    """What is out there was made by this text."""
    assert hashlib.sha256(VERSIONS[0].encode()).hexdigest() == FIRST_SCHEMA


async def test_a_period_that_is_due_survives_a_restart(tmp_path: Path) -> None:
    due = Due(1.1, 2.2)
    made = Pin("acc", ObjectKey("net", cid_of(b"x")), 1, 1.1, 1.1, due, 1.5)
    catalog = Catalog(tmp_path / "catalog.sqlite3")
    await catalog.open()
    await PinRecords(catalog).put(made)
    await catalog.close()
    again = Catalog(tmp_path / "catalog.sqlite3")
    await again.open()
    assert await PinRecords(again).all() == [made]
    await again.close()


async def test_credit_that_the_edge_has_leased_pays_for_pins_too(world: World) -> None:
    tenant = await world.tenant(credit=2 * PRICE + 10)
    cid, other = world.chain.add(some_bytes(SIZE)), world.chain.add(b"hello")
    async with world.edge(**LONG, lease_credits=2 * PRICE) as edge:
        await pin(edge, tenant, cid)
        for _ in range(3):
            await edge.get(object_path(other), tenant)

        async def is_leased() -> bool:
            return (await tenant.balance()).available < PRICE

        await until(is_leased, "the edge has leased what is left")
        end = only_pin(edge).paid_until
        await renew(edge, end)
        assert only_pin(edge).paid_until == end + PERIOD_S


async def test_two_rounds_at_once_pay_once(world: World, tenant: Tenant) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**LONG) as edge:
        await pin(edge, tenant, cid)
        end = only_pin(edge).paid_until
        await asyncio.gather(*(renew(edge, end) for _ in range(5)))
    assert await amounts(tenant) == [PRICE, PRICE]
