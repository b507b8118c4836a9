"""Preconditions: who has an object already, and who means another one."""

from __future__ import annotations

import pytest

from services.edge.http.conditions import not_modified
from services.edge.http.problems import PreconditionFailedError
from tests.edge.conftest import RunningEdge, Tenant, World, object_path
from tests.support.fake_chain import NETWORK, cid_of

CID = "bafkr6iexample"
OTHER = '"other"'


def _outcome(**request: str) -> int:
    try:
        headers = {name.replace("_", "-"): value for name, value in request.items()}
        return 304 if not_modified(headers, CID) else 200
    except PreconditionFailedError:
        return 412


@pytest.mark.parametrize(
    ("field", "if_match", "if_none_match"),
    [
        (f'"{CID}"', 200, 304),
        (f'"other", "{CID}"', 200, 304),
        (f', ,"other" ,\t"{CID}",', 200, 304),
        (f'"a,b","{CID}"', 200, 304),
        (f'"\xe9","{CID}"', 200, 304),
        ("*", 200, 304),
        (" * ", 200, 304),
        (f'W/"{CID}"', 412, 304),
        (f'"other", W/"{CID}"', 412, 304),
        (OTHER, 412, 200),
        ('""', 412, 200),
        (f'"x{CID}"', 412, 200),
        # What is no list of entity tags names nothing.
        ("", 412, 200),
        (CID, 412, 200),
        (f'"{CID}', 412, 200),
        (f'w/"{CID}"', 412, 200),
        (f'W/ "{CID}"', 412, 200),
        (f'"{CID}" "other"', 412, 200),
        (f'"{CID}", other', 412, 200),
        (f'*, "{CID}"', 412, 200),
        ('"other", *', 412, 200),
        (f'"a b", "{CID}"', 412, 200),
        ('"' * 50_000, 412, 200),
        ('"a" ' * 20_000 + "!", 412, 200),
    ],
)
def test_fields_name_what_is_there_or_not(field: str, if_match: int, if_none_match: int) -> None:
    assert _outcome(if_match=field) == if_match
    assert _outcome(if_none_match=field) == if_none_match


def test_if_match_goes_before_if_none_match() -> None:
    own = f'"{CID}"'
    assert _outcome() == 200
    assert _outcome(if_match=OTHER, if_none_match=own) == 412
    assert _outcome(if_match=own, if_none_match=own) == 304
    assert _outcome(if_match=own, if_none_match=OTHER) == 200


@pytest.mark.parametrize("date", ["Sat, 29 Oct 1994 19:43:31 GMT", "nonsense", "0"])
def test_an_object_has_no_date_so_dates_are_ignored(date: str) -> None:
    assert _outcome(if_modified_since=date, if_unmodified_since=date) == 200
    assert _outcome(if_modified_since=date, if_none_match=f'"{CID}"') == 304
    assert _outcome(if_unmodified_since=date, if_match=OTHER) == 412


async def test_a_304_has_what_the_rfc_demands_and_nothing_that_describes_a_body(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    whole = await edge.get(object_path(cid), tenant)
    for method in ("GET", "HEAD"):
        answer = await edge.get(object_path(cid), tenant, method, If_None_Match=f'W/"{cid}"')
        assert (answer.status, answer.body) == (304, b"")
        for name in ("ETag", "Cache-Control", "Vary"):
            assert answer.headers[name] == whole.headers[name]
        assert answer.headers["Date"]
        assert not [name for name in answer.headers if name.startswith("Content-")]
        assert "Transfer-Encoding" not in answer.headers
        assert "Repr-Digest" not in answer.headers
    assert await tenant.paid_bytes() == [5]


async def test_a_412_goes_before_ranges_and_is_free(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    for method, body in (("GET", True), ("HEAD", False)):
        answer = await edge.get(
            object_path(cid), tenant, method, If_Match=OTHER, Range="bytes=100-"
        )
        assert (answer.status, bool(answer.body)) == (412, body)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert await tenant.paid() == []


async def test_a_304_goes_before_ranges(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    cid = world.chain.add(b"hello")
    for part in ("bytes=0-1", "bytes=100-", "nonsense"):
        answer = await edge.get(object_path(cid), tenant, If_None_Match="*", Range=part)
        assert answer.status == 304


@pytest.mark.parametrize("fields", [{"If_None_Match": "*"}, {"If_Match": OTHER}])
async def test_conditions_do_not_matter_where_there_is_nothing(
    world: World, edge: RunningEdge, tenant: Tenant, fields: dict[str, str]
) -> None:
    absent = object_path(cid_of(b"absent"))
    assert (await edge.get(absent, tenant, **fields)).status == 404
    assert (await edge.get(absent, None, **fields)).status == 401
    cid = world.chain.add(b"hello")
    assert (await edge.get(object_path(cid), tenant, "POST", **fields)).status == 405


async def test_fields_sent_several_times_are_one_list(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    fields = [*tenant.headers.items(), ("If-None-Match", OTHER), ("If-None-Match", f'"{cid}"')]
    async with edge.session.get(object_path(cid), headers=fields) as answer:
        assert answer.status == 304


async def test_what_has_no_validator_is_not_changed_under_if_match(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    for method, path in (
        ("POST", f"/objects/{NETWORK}"),
        ("PUT", f"/pins/{NETWORK}/{cid}"),
        ("DELETE", f"/pins/{NETWORK}/{cid}"),
    ):
        for field in ("*", f'"{cid}"'):
            fields = {"Content_Length": "0"} if method == "POST" else {}
            answer = await edge.get(path, tenant, method, If_Match=field, **fields)
            assert answer.status == 412, path
    assert await tenant.paid() == []
    answer = await edge.get(f"/pins/{NETWORK}/{cid}", tenant, "PUT", If_None_Match="*")
    assert answer.status == 201
