"""Ranges: the parts that requests mean, against slices of Python."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.chain.errors import RangeNotSatisfiableError
from services.edge.http.ranges import any_match, byte_range, none_matches, range_applies
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes

CID = "bafkr6iexample"


def _slice(data: bytes, header: str) -> bytes | None:
    """What a well-formed range means, worked out another way; None when it is unsatisfiable."""
    first, last = header.removeprefix("bytes=").split("-")
    if not first:
        wanted = range(max(0, len(data) - int(last)), len(data))
    else:
        wanted = range(int(first), int(last) + 1 if last else len(data))
    positions = [position for position in wanted if 0 <= position < len(data)]
    return bytes(data[position] for position in positions) or None


numbers = st.integers(min_value=0, max_value=40)
well_formed = st.one_of(
    st.tuples(numbers, numbers)
    .filter(lambda pair: pair[0] <= pair[1])
    .map(lambda pair: f"bytes={pair[0]}-{pair[1]}"),
    numbers.map(lambda first: f"bytes={first}-"),
    numbers.map(lambda suffix: f"bytes=-{suffix}"),
)


@given(size=st.integers(min_value=0, max_value=30), header=well_formed)
@settings(print_blob=True)
def test_a_range_is_a_slice(size: int, header: str) -> None:
    data = bytes(range(size))
    expected = _slice(data, header)
    if expected is None:
        with pytest.raises(RangeNotSatisfiableError) as refusal:
            byte_range(header, size)
        assert refusal.value.metadata == {"size_bytes": str(size)}
        return
    part = byte_range(header, size)
    assert part is not None
    assert data[part.first : part.first + part.length] == expected
    wanted = f"bytes {part.first}-{part.first + part.length - 1}/{size}"
    assert part.content_range(size) == wanted.encode()


@given(header=st.text(max_size=30))
@settings(print_blob=True)
def test_any_text_is_a_range_or_is_ignored(header: str) -> None:
    try:
        part = byte_range(header, 10)
    except RangeNotSatisfiableError:
        return
    assert part is None or 0 <= part.first < part.first + part.length <= 10


@pytest.mark.parametrize(
    "header",
    ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "items=0-1", "bytes=0-1,3-4"],
)
def test_what_is_not_one_well_formed_range_means_the_whole(header: str) -> None:
    assert byte_range(header, 10) is None


def test_conditions_compare_as_the_rfc_says() -> None:
    assert any_match(f'"{CID}"', CID)
    assert any_match(f'"other", W/"{CID}"', CID)
    assert any_match("*", CID)
    assert not any_match('"other"', CID)
    assert not any_match(None, CID)
    assert none_matches(f'W/"{CID}"', CID), "If-Match compares strongly"
    assert not none_matches(f'"other", "{CID}"', CID)
    assert not none_matches("*", CID)
    assert range_applies(None, CID)
    assert range_applies(f'"{CID}"', CID)
    assert not range_applies(f'W/"{CID}"', CID)
    assert not range_applies("Sat, 29 Oct 1994 19:43:31 GMT", CID)


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-299999", slice(100, 300_000)),
        ("bytes=700000-", slice(700_000, None)),
        ("bytes=-5", slice(-5, None)),
        ("bytes=699990-9999999", slice(699_990, None)),
        ("bytes=-9999999", slice(None)),
    ],
)
async def test_a_part_is_sent_and_paid_for(
    world: World, edge: RunningEdge, tenant: Tenant, header: str, part: slice
) -> None:
    data = some_bytes(700_007)
    cid = world.chain.add(data)
    for _ in range(2):  # a miss, then a hit
        answer = await edge.get(object_path(cid), tenant, Range=header)
        assert answer.status == 206
        assert answer.body == data[part]
        begin, end, _ = part.indices(len(data))
        assert answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/{len(data)}"
        assert answer.headers["Content-Length"] == str(len(answer.body))
    assert await tenant.paid_bytes() == [len(data[part])] * 2


async def test_beyond_the_end_is_416_and_free(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"0123456789")
    answer = await edge.get(object_path(cid), tenant, Range="bytes=10-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */10"
    assert answer.json()["reason"] == "RANGE_NOT_SATISFIABLE"
    assert answer.json()["metadata"] == {"size_bytes": "10"}
    assert await tenant.entries() == (await tenant.entries())[:1], "only the grant"


async def test_if_range_decides_between_the_part_and_the_whole(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"0123456789")
    part = await edge.get(object_path(cid), tenant, Range="bytes=2-3", If_Range=f'"{cid}"')
    whole = await edge.get(object_path(cid), tenant, Range="bytes=2-3", If_Range='"other"')
    assert (part.status, part.body) == (206, b"23")
    assert (whole.status, whole.body) == (200, b"0123456789")


async def test_head_ignores_ranges(world: World, edge: RunningEdge, tenant: Tenant) -> None:
    cid = world.chain.add(b"0123456789")
    answer = await edge.get(object_path(cid), tenant, "HEAD", Range="bytes=2-3")
    assert (answer.status, answer.headers["Content-Length"]) == (200, "10")


async def test_an_empty_object_has_no_ranges_and_costs_nothing(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"")
    whole = await edge.get(object_path(cid), tenant)
    assert (whole.status, whole.body, whole.headers["Content-Length"]) == (200, b"", "0")
    assert whole.headers["Tollmesh-Cost"] == "0"
    assert (await edge.get(object_path(cid), tenant, Range="bytes=0-")).status == 416
    assert await tenant.paid() == []
