"""Whatever is asked of an object, the answer is the one that a model of RFC 9110 gives.

nginx, with the same bytes in a file, answers the same wherever it follows the RFC; where it does
not, or takes another choice that the RFC leaves, stands in ``DIFFERENCES``.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, given, settings

from tests.edge.conftest import Tenant, World, object_path
from tests.support.delivery_model import (
    READING,
    Expected,
    Fields,
    Resource,
    byte_range_set,
    entity_tags,
    expected,
    field,
    joined,
    satisfy,
)
from tests.support.fake_chain import cid_of
from tests.support.multipart_body import parts_of
from tests.support.odd_requests import OddRequest, requests
from tests.support.raw_http import RawAnswer, RawClient
from tests.support.static_nginx import running_static_nginx

SIZES = (0, 1, 10, 1000, 300_007)
MEDIA_TYPE = "application/x-test"
FINAL = "private, max-age=31536000, immutable"
ABSENT = cid_of(b"absent")
EXAMPLES = 250
SAME = "the same"

# A run depends on its seed alone; a busy machine is no reason to fail.
RUN = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def _data(size: int) -> bytes:
    """Bytes whose every part is told apart from the others."""
    blocks = range(-(-size // 32))
    return b"".join(hashlib.sha256(b"%d" % number).digest() for number in blocks)[:size]


DATA = tuple(_data(size) for size in SIZES)
CIDS = tuple(cid_of(data) for data in DATA)


@pytest.mark.parametrize("lease_credits", [0, 1_000_000])
async def test_the_edge_answers_as_the_model_and_nginx_wherever_it_follows_the_rfc(
    world: World, tenant: Tenant, nginx: RawClient, seed: int, lease_credits: int
) -> None:
    """Out of leases, hits take a shorter way through the edge."""
    for data in DATA:
        world.chain.add(data, media_type=MEDIA_TYPE)
    tags = [nginx.ask("HEAD", f"/{n}", [("Host", "a")]).one("etag") or "" for n in range(len(DATA))]
    sent: list[int] = []
    compared: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @RUN
    @given(request=requests(SIZES))
    def check(request: OddRequest) -> None:
        answer = _ask_edge(client, request, tenant)
        if request.method == "GET" and answer.status in {200, 206} and answer.body:
            sent.append(len(answer.body))
        _check_edge(request, answer)
        if request.has_key:  # nginx asks for none
            compared[_compare_nginx(nginx, request, tags)] += 1

    async with world.edge(lease_credits=lease_credits) as edge:
        client = RawClient(edge.host, edge.port)
        try:
            await asyncio.to_thread(check)
        finally:
            client.close()
    paid = await tenant.paid_bytes()
    assert sum(paid) == sum(sent), "each answer's body, and nothing else"
    assert lease_credits or sorted(paid) == sorted(sent)
    assert compared[SAME] > EXAMPLES // 2, compared


def _ask_edge(client: RawClient, request: OddRequest, tenant: Tenant) -> RawAnswer:
    cid = ABSENT if request.resource is None else CIDS[request.resource]
    key = [("X-API-Key", tenant.key)] if request.has_key else []
    fields = [("Host", "edge"), *key, *request.fields_for(f'"{cid}"')]
    return client.ask(request.method, object_path(cid), fields)


def _check_edge(request: OddRequest, answer: RawAnswer) -> None:
    wanted = _wanted(request, '"tag"')
    assert answer.status == wanted.status
    assert answer.one("date")
    assert answer.one("x-request-id")
    assert answer.one("access-control-allow-origin") == "*"
    if answer.status in {200, 206}:
        assert request.resource is not None
        _check_content(request, answer, wanted)
    elif answer.status == 304:
        assert request.resource is not None
        assert answer.one("etag") == f'"{CIDS[request.resource]}"'
        assert answer.one("cache-control") == FINAL
        assert answer.one("vary")
        assert not [name for name, _ in answer.fields if name.startswith("content-")]
    elif answer.status == 204:
        assert _allowed(answer) >= READING
    else:
        _check_problem(request, answer)


def _check_content(request: OddRequest, answer: RawAnswer, wanted: Expected) -> None:
    assert request.resource is not None
    data, cid = DATA[request.resource], CIDS[request.resource]
    assert answer.one("etag") == f'"{cid}"'
    assert answer.one("accept-ranges") == "bytes"
    assert answer.one("cache-control") == FINAL
    assert answer.one("vary")
    fields = request.fields_for(f'"{cid}"')
    described = field(fields, "if-range") is None or answer.status == 200
    assert (answer.one("content-disposition") is not None) == described
    digest = answer.one("repr-digest")
    assert digest in {None, _digest(data)}
    if field(fields, "want-repr-digest") == "sha-512=3, sha-256=0":
        assert digest is None
    if request.method == "HEAD":
        assert answer.one("content-length") == str(len(data))
        return
    assert int(answer.one("tollmesh-cost") or "-1") >= 0
    if len(wanted.parts) > 1:
        assert _parts(answer, described=True) == _cut(data, wanted.parts)
        assert answer.one("content-range") is None
        return
    first, last = wanted.parts[0] if wanted.parts else (0, -1)
    assert answer.body == data[first : last + 1]
    assert answer.one("content-type") == (MEDIA_TYPE if described else None)
    extent = f"bytes {first}-{last}/{len(data)}" if answer.status == 206 else None
    assert answer.one("content-range") == extent
    if answer.one("content-digest") is not None:
        assert "sha-256=1" in (field(fields, "want-content-digest") or "")
        assert answer.one("content-digest") == _digest(answer.body)


def _check_problem(request: OddRequest, answer: RawAnswer) -> None:
    assert answer.one("content-type") == "application/problem+json"
    assert answer.one("cache-control") == "no-store"
    if answer.status == 405:
        assert _allowed(answer) >= READING
        assert request.method not in _allowed(answer)
    assert (answer.one("www-authenticate") is not None) == (answer.status == 401)
    size = SIZES[request.resource] if request.resource is not None else 0
    assert answer.one("content-range") == (f"bytes */{size}" if answer.status == 416 else None)
    if request.method != "HEAD":
        assert json.loads(answer.body)["status"] == answer.status


def _allowed(answer: RawAnswer) -> set[str]:
    return set((answer.one("allow") or "").split(", "))


def _wanted(request: OddRequest, tag: str) -> Expected:
    resource = None if request.resource is None else Resource(tag, SIZES[request.resource])
    fields = request.fields_for(tag)
    return expected(request.method, fields, resource, has_key=request.has_key)


def _cut(data: bytes, parts: tuple[tuple[int, int], ...]) -> list[tuple[str, bytes]]:
    size = len(data)
    return [(f"bytes {first}-{last}/{size}", data[first : last + 1]) for first, last in parts]


def _parts(answer: RawAnswer, *, described: bool) -> list[tuple[str, bytes]]:
    """The parts of a multipart answer: what each says that it is, and its bytes."""
    found = parts_of(answer.one("content-type") or "", answer.body)
    assert {part.content_type for part in found} == {MEDIA_TYPE if described else ""}
    return [(part.content_range, part.body) for part in found]


def _digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


# nginx.


@dataclass(frozen=True, slots=True)
class Difference:
    """Requests that nginx may answer in another way, and why."""

    reason: str
    concerns: Callable[[str, Fields, int], bool]
    """Given the method, the fields, and the resource's size."""


def _range_of(fields: Fields) -> str:
    return field(fields, "range") or ""


def _specs(fields: Fields) -> list[tuple[int | None, int | None]]:
    return byte_range_set(_range_of(fields)) or []


def _lists_no_tags(_method: str, fields: Fields, _size: int) -> bool:
    values = (field(fields, "if-match"), field(fields, "if-none-match"))
    return any(value not in {None, "*"} and entity_tags(value or "") is None for value in values)


def _has_gaps(_method: str, fields: Fields, _size: int) -> bool:
    elements = _range_of(fields).partition("=")[2].split(",")
    return bool(_specs(fields)) and any(not each.strip() or "\t" in each for each in elements)


def _meet(_method: str, fields: Fields, size: int) -> bool:
    found = [each for spec in _specs(fields) if (each := satisfy(spec, size)) is not None]
    return len(joined(found)) < len(found)


DIFFERENCES = (
    Difference(
        "OPTIONS of a file is 405; we tell what is allowed (section 9.3.7)",
        lambda method, _fields, _size: method == "OPTIONS",
    ),
    Difference(
        "it heeds the Range of a HEAD, for which section 14.2 defines nothing",
        lambda method, fields, _size: method == "HEAD" and bool(_range_of(fields)),
    ),
    Difference(
        "it takes from If-Match and If-None-Match what looks like a tag, whatever else is there",
        _lists_no_tags,
    ),
    Difference(
        "it refuses a malformed Range, or reads some; section 14.2 allows that and to ignore it",
        lambda _method, fields, _size: (
            _range_of(fields).lower().startswith("bytes=") and not _specs(fields)
        ),
    ),
    Difference(
        "it refuses lists with empty elements or tabs; section 5.6.1.2 has them accepted",
        lambda _method, fields, _size: (
            "\t" in _range_of(fields)
            or "" in [each.strip() for each in _range_of(fields).partition("=")[2].split(",")]
        ),
    ),
    Difference(
        "it refuses positions that do not fit 63 bits; section 14.1.2 takes them as beyond the end",
        lambda _method, fields, _size: (
            any((last or 0) >= 10**18 for _, last in _specs(fields))
            or any((first or 0) >= 10**18 for first, _ in _specs(fields))
        ),
    ),
    Difference(
        "it sends ranges that meet one by one, or the whole; section 15.3.7.2 leaves it open",
        _meet,
    ),
    Difference(
        "it sends any number of ranges; section 15.5.17 lets a server refuse many",
        lambda _method, fields, _size: len(_specs(fields)) > 64,
    ),
    Difference(
        "it sends 200 for any range of an empty file that begins at 0; the range is unsatisfiable",
        lambda _method, fields, size: size == 0 and bool(_specs(fields)),
    ),
)


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[RawClient]:
    """A client of an nginx that has the same bytes."""
    root, home = tmp_path / "www", tmp_path / "nginx"
    root.mkdir()
    home.mkdir()
    for place, data in enumerate(DATA):
        (root / str(place)).write_bytes(data)
    async with running_static_nginx(root, home, MEDIA_TYPE) as port:
        client = RawClient("127.0.0.1", port)
        yield client
        client.close()


def _compare_nginx(nginx: RawClient, request: OddRequest, tags: list[str]) -> str:
    """Asks nginx the same; SAME, or the reason why its answer is another one."""
    place = request.resource
    path, tag, size = ("/absent", '"absent"', 0)
    if place is not None:
        path, tag, size = (f"/{place}", tags[place], SIZES[place])
    fields = _for_nginx(request.fields_for(tag))
    answer = nginx.ask(request.method, path, [("Host", "a"), *fields])
    nginx.close()  # behind a 412 it ends the connection that it says to keep
    wanted = _wanted(request, tag)
    same = answer.status == wanted.status and (
        answer.status not in {200, 206}
        or request.method == "HEAD"
        or _content(answer, wanted) == _cut(DATA[place or 0], wanted.parts)
    )
    reasons = [d.reason for d in DIFFERENCES if d.concerns(request.method, fields, size)]
    assert same or reasons, (answer.status, wanted)
    return SAME if same else reasons[0]


def _for_nginx(fields: Fields) -> Fields:
    """The fields as nginx is asked by them.

    Its files have a date, objects have none: the conditions on dates are left out. Of several lines
    of one field it takes the first: they are one, which is the same (section 5.3).
    """
    names = {name.lower(): None for name, _ in fields}
    dates = {"if-modified-since", "if-unmodified-since"}
    return tuple((name, field(fields, name) or "") for name in names if name not in dates)


def _content(answer: RawAnswer, wanted: Expected) -> list[tuple[str, bytes]]:
    """What the body has, as ``_cut`` gives it."""
    if (answer.one("content-type") or "").startswith("multipart/"):
        return _parts(answer, described=True)
    if answer.status == 206:
        return [(answer.one("content-range") or "", answer.body)]
    size = len(answer.body)
    return [(f"bytes 0-{size - 1}/{size}", answer.body)] if wanted.parts or size else []
