"""Ranges: the parts that requests mean, that each is sent once, and what is paid for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chain.errors import RangeNotSatisfiableError
from services.edge.http.multipart import multipart
from services.edge.http.ranges import MAX_RANGES, ByteRange, byte_ranges, range_applies
from tests.edge.conftest import Answer, RunningEdge, Tenant, World, object_path, some_bytes
from tests.support.multipart_body import BodyPart, parts_of

CID = "bafkr6iexample"

numbers = st.integers(min_value=0, max_value=40)
well_formed = st.one_of(
    st.tuples(numbers, numbers)
    .filter(lambda pair: pair[0] <= pair[1])
    .map(lambda pair: f"{pair[0]}-{pair[1]}"),
    numbers.map(lambda first: f"{first}-"),
    numbers.map(lambda suffix: f"-{suffix}"),
)


def _positions(size: int, spec: str) -> set[int]:
    """Which bytes a well-formed range means."""
    first, last = spec.split("-")
    if not first:
        return set(range(size)[max(0, size - int(last)) :])
    return set(range(size)[int(first) : int(last) + 1 if last else None])


@given(
    size=st.integers(min_value=1, max_value=30),
    specs=st.lists(well_formed, min_size=1, max_size=8),
)
def test_ranges_are_the_bytes_that_were_asked_for_and_each_once(
    size: int, specs: list[str]
) -> None:
    header = f"bytes={','.join(specs)}"
    wanted = set().union(*(_positions(size, spec) for spec in specs))
    if not wanted:
        with pytest.raises(RangeNotSatisfiableError) as refusal:
            byte_ranges(header, size)
        assert refusal.value.metadata == {"size_bytes": str(size)}
        return
    ranges = byte_ranges(header, size)
    sent = [position for each in ranges for position in range(each.first, each.end)]
    assert len(sent) == len(set(sent)), "no byte twice"
    assert set(sent) == wanted
    assert len(ranges) == len([each for each in wanted if each - 1 not in wanted]), "none touch"
    for each in ranges:
        assert each.content_range(size) == b"bytes %d-%d/%d" % (each.first, each.end - 1, size)


@given(header=st.text(max_size=30) | st.text("bytes=0123-, \t", max_size=30))
def test_any_text_is_ranges_or_is_ignored(header: str) -> None:
    try:
        ranges = byte_ranges(header, 10)
    except RangeNotSatisfiableError:
        return
    assert all(0 <= each.first < each.end <= 10 for each in ranges)


@pytest.mark.parametrize(
    "header",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-2", "items=0-1", "bytes=,"),
        *("bytes=0-1,5-2", "bytes=0-1,x", "bytes=0 -1", "bytes 0-1", "bytes=0-1-2", "bytes=+0-1"),
        *("bytes=0-1;2-3", "bytes=\u0663-4", "bytes =0-1"),
    ],
)
def test_what_is_not_well_formed_means_the_whole(header: str) -> None:
    assert byte_ranges(header, 10) == ()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0,-1", [(0, 1), (9, 1)]),
        ("bytes=8-,0-1", [(8, 2), (0, 2)]),
        ("bytes=5-6,0-1,6-7", [(5, 3), (0, 2)]),
        ("bytes=0-1,2-3", [(0, 4)]),
        ("bytes=7-7,0-0,3-3", [(7, 1), (0, 1), (3, 1)]),
        ("bytes=3-3,0-9", [(0, 10)]),
        ("bytes=100-,2-3", [(2, 2)]),
        ("BYTES=2-3", [(2, 2)]),
        ("bytes= 2-3 , ,\t5-6,", [(2, 2), (5, 2)]),
        ("bytes=2-99999999999999999999999", [(2, 8)]),
        ("bytes=-99999999999999999999999", [(0, 10)]),
        ("bytes=00000000000000000000002-3", [(2, 2)]),
        ("bytes=9-9" + "0" * 5000, [(9, 1)]),
    ],
)
def test_the_order_is_kept_and_overlaps_are_joined(
    header: str, expected: list[tuple[int, int]]
) -> None:
    assert byte_ranges(header, 10) == tuple(ByteRange(*each) for each in expected)


def test_too_many_ranges_are_refused_whether_they_overlap_or_not() -> None:
    many = ",".join(f"{2 * n}-{2 * n}" for n in range(MAX_RANGES))
    assert len(byte_ranges(f"bytes={many}", 1000)) == MAX_RANGES
    for more in ("900-901", "0-0"):
        with pytest.raises(RangeNotSatisfiableError, match="At most"):
            byte_ranges(f"bytes={many},{more}", 1000)


def test_of_an_empty_object_no_byte_can_be_had() -> None:
    assert byte_ranges("bytes=-5", 0) == (), "a suffix is satisfiable, but a 206 cannot say so"
    for header in ("bytes=0-", "bytes=0-0", "bytes=-0"):
        with pytest.raises(RangeNotSatisfiableError):
            byte_ranges(header, 0)


def test_if_range_compares_strongly_and_knows_no_date() -> None:
    assert range_applies(None, CID)
    assert range_applies(f'"{CID}"', CID)
    for other in (f'W/"{CID}"', CID, "*", "", f'"{CID}", "b"', "Sat, 29 Oct 1994 19:43:31 GMT"):
        assert not range_applies(other, CID)


@given(st.lists(st.integers(min_value=0, max_value=99), min_size=2, max_size=20, unique=True))
def test_a_multipart_body_is_as_long_as_it_says_and_can_be_read(firsts: list[int]) -> None:
    data = bytes(range(100))
    body = multipart([ByteRange(first, 1) for first in firsts], 100, b"text/plain")
    text = b"".join(
        part.before + data[part.first : part.first + part.length] for part in body.parts
    )
    assert parts_of(body.content_type.decode(), text + body.closing) == [
        BodyPart("text/plain", f"bytes {first}-{first}/100", bytes([first])) for first in firsts
    ]


def _several(answer: Answer) -> list[tuple[str, bytes]]:
    assert answer.status == 206
    assert "Content-Range" not in answer.headers
    assert answer.headers["Content-Length"] == str(len(answer.body))
    parts = parts_of(answer.headers["Content-Type"], answer.body)
    assert {part.content_type for part in parts} == {"text/plain"}
    return [(part.content_range, part.body) for part in parts]


async def test_several_parts_are_one_answer_and_every_byte_of_it_is_paid(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(700_007)
    cid = world.chain.add(data, media_type="text/plain")
    answers = []
    for _ in range(2):  # a miss, then a hit
        answer = await edge.get(object_path(cid), tenant, Range="bytes=600000-699999,0-9,-5")
        assert _several(answer) == [
            ("bytes 600000-699999/700007", data[600_000:700_000]),
            ("bytes 0-9/700007", data[:10]),
            ("bytes 700002-700006/700007", data[-5:]),
        ]
        answers.append(answer)
        await edge.cached(cid)
    assert answers[0].headers["Content-Type"] != answers[1].headers["Content-Type"], "boundaries"
    assert answers[1].headers["Cache-Status"] == '"test"; hit; detail=disk'
    assert await tenant.paid_bytes() == [len(answer.body) for answer in answers]
    assert answers[0].headers["ETag"] == f'"{cid}"'


async def test_one_part_that_is_left_of_several_is_no_multipart(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"0123456789")
    for header in ("bytes=2-3,50-60", "bytes=2-2,3-3", "bytes=2-3,,"):
        answer = await edge.get(object_path(cid), tenant, Range=header)
        assert (answer.status, answer.body) == (206, b"23")
        assert answer.headers["Content-Range"] == "bytes 2-3/10"


async def test_too_many_parts_are_416_and_free(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"0123456789")
    header = "bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1))
    answer = await edge.get(object_path(cid), tenant, Range=header)
    assert (answer.status, answer.headers["Content-Range"]) == (416, "bytes */10")
    assert await tenant.paid() == []


async def test_who_has_the_description_already_is_not_told_again(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"0123456789", media_type="text/html")
    answer = await edge.get(object_path(cid), tenant, Range="bytes=2-3", If_Range=f'"{cid}"')
    assert (answer.status, answer.body) == (206, b"23")
    assert answer.headers["ETag"] == f'"{cid}"'
    assert "sandbox" in answer.headers["Content-Security-Policy"]
    for name in ("Content-Type", "Content-Disposition", "Repr-Digest"):
        assert name not in answer.headers


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
