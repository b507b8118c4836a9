"""Headers of objects: validators, caching, names, media types."""

from __future__ import annotations

import base64
import hashlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tollmesh.chain.v1 import chain_pb2

from services.edge.http.representation import content_disposition
from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes, until
from tests.support.disposition_field import disposition_of
from tests.support.fake_chain import NETWORK

FINAL = "private, max-age=31536000, immutable"


async def test_an_object_carries_its_validator_and_what_it_is(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", name="hello.txt", media_type="text/plain")
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["ETag"] == f'"{cid}"'
    assert answer.headers["Cache-Control"] == FINAL
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Type"] == "text/plain"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == 'inline; filename="hello.txt"'
    assert answer.headers["Tollmesh-Currency"] == "credit"
    assert int(answer.headers["Tollmesh-Available"]) > 0
    assert "Content-Security-Policy" not in answer.headers
    assert answer.headers["Date"]
    assert answer.headers["X-Request-Id"]


async def test_what_is_not_final_is_not_declared_immutable(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    for finality in (chain_pb2.FINALITY_LATEST, chain_pb2.FINALITY_SAFE):
        cid = world.chain.add(b"new %d" % finality, finality=finality)
        answer = await edge.get(object_path(cid), tenant)
        assert answer.headers["Cache-Control"] == "private, no-cache"


async def test_the_same_object_again_is_304_and_free(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    for method in ("GET", "HEAD"):
        answer = await edge.get(object_path(cid), tenant, method, If_None_Match=f'W/"{cid}"')
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == f'"{cid}"'
        assert answer.headers["Cache-Control"] == FINAL
        assert "Content-Length" not in answer.headers
    assert (await edge.get(object_path(cid), tenant, If_None_Match='"other"')).status == 200
    assert await tenant.paid_bytes() == [5]


async def test_if_match_of_something_else_is_412(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    assert (await edge.get(object_path(cid), tenant, If_Match='"other"')).status == 412
    assert (await edge.get(object_path(cid), tenant, If_Match=f'"{cid}"')).status == 200


async def test_head_says_what_get_would_and_costs_nothing(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", name="hello.txt")
    head = await edge.get(object_path(cid), tenant, "HEAD")
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", "5")
    got = await edge.get(object_path(cid), tenant)
    for name in ("ETag", "Cache-Control", "Content-Type", "Content-Disposition"):
        assert head.headers[name] == got.headers[name]
    assert await tenant.paid_bytes() == [5]


@pytest.mark.parametrize(
    ("path", "disposition"),
    [
        ("/objects/{network}/{cid}", "inline"),
        ("/objects/{network}/{cid}?download", "attachment"),
        ("/file/{cid}", "inline"),
        ("/file/{cid}?download", "attachment"),
        ("/downloads/{cid}", "attachment"),
        ("/downloads/{cid}?inline", "inline"),
    ],
)
async def test_each_path_shows_or_saves(
    world: World, edge: RunningEdge, tenant: Tenant, path: str, disposition: str
) -> None:
    cid = world.chain.add(b"hello", name="hello.txt")
    answer = await edge.get(path.format(network=NETWORK, cid=cid), tenant)
    assert (answer.status, answer.body) == (200, b"hello")
    assert answer.headers["Content-Disposition"] == f'{disposition}; filename="hello.txt"'


@pytest.mark.parametrize(
    ("media_type", "sent", "sandboxed"),
    [
        ("text/html", "text/html", True),
        ("image/svg+xml", "image/svg+xml", True),
        ("application/xhtml+xml", "application/xhtml+xml", True),
        ("text/javascript", "text/javascript", True),
        ("image/png", "image/png", False),
        ("text/plain; charset=utf-8", "text/plain; charset=utf-8", False),
        ("text/html\r\nset-cookie: a=b", "application/octet-stream", False),
        ("nonsense", "application/octet-stream", False),
        ("", "application/octet-stream", False),
    ],
)
async def test_no_file_acts_in_the_name_of_the_edge(
    world: World, edge: RunningEdge, tenant: Tenant, media_type: str, sent: str, sandboxed: bool
) -> None:
    cid = world.chain.add(media_type.encode(), media_type=media_type)
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["Content-Type"] == sent
    assert ("sandbox" in answer.headers.get("Content-Security-Policy", "")) == sandboxed
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("plain.txt", 'attachment; filename="plain.txt"'),
        ("two words.txt", 'attachment; filename="two words.txt"'),
        ("naïve.txt", "attachment; filename=\"naive.txt\"; filename*=UTF-8''na%C3%AFve.txt"),
        ("文件", "attachment; filename=\"file\"; filename*=UTF-8''%E6%96%87%E4%BB%B6"),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b_c"),
        ("../../etc/passwd", 'attachment; filename="_.._etc_passwd"'),
        ("a\r\nset-cookie: x", 'attachment; filename="a__set-cookie: x"'),
        ("exe\u202etxt.doc", 'attachment; filename="exe_txt.doc"'),
        ("100%.txt", "attachment; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ("\x00", 'attachment; filename="_"'),
        ("...", 'attachment; filename="file"'),
        (
            "\u2025\uff0fetc",
            "attachment; filename=\"_etc\"; filename*=UTF-8''%E2%80%A5%EF%BC%8Fetc",
        ),
    ],
)
def test_names_are_safe_in_headers_and_on_disks(name: str, header: str) -> None:
    assert content_disposition("attachment", name) == header.encode()


@given(name=st.text(max_size=255))
def test_any_name_is_read_back_by_the_grammar_and_is_safe(name: str) -> None:
    header = content_disposition("attachment", name)
    assert len(header) < 4096
    found = disposition_of(header.decode("ascii"))
    assert found.kind == "attachment"
    for each in (found.plain, found.name):
        assert each
        assert not set(each) & set("/\\")
        assert not each.startswith(".")
        assert not any(unicodedata.category(letter) in {"Cc", "Cf", "Cs"} for letter in each)
    assert not set(found.plain) & set('"%'), "old clients take these for something else"
    kept = not any(
        letter in "/\\" or unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
        for letter in name
    )
    if kept and name and name.strip(". ") == name:
        assert found.name == name


@pytest.mark.parametrize("name", ["naïve résumé.pdf", "文件 名.txt", "emoji 🎉.png"])
async def test_unicode_names_arrive_whole(
    world: World, edge: RunningEdge, tenant: Tenant, name: str
) -> None:
    cid = world.chain.add(name.encode(), name=name)
    answer = await edge.get(object_path(cid), tenant)
    assert disposition_of(answer.headers["Content-Disposition"]).name == name


async def test_a_nameless_object_is_named_by_its_cid(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello", name="")
    answer = await edge.get(object_path(cid), tenant)
    assert answer.headers["Content-Disposition"] == f'inline; filename="{cid}"'


def _digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_the_digest_of_the_whole_is_told_once_it_is_known(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(100_000)
    cid = world.chain.add(data)
    first = await edge.get(object_path(cid), tenant)
    assert "Repr-Digest" not in first.headers, "nobody has seen all the bytes yet"
    await edge.cached(cid)
    for method, fields in (
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"Range": "bytes=0-9"}),
        ("GET", {"Range": "bytes=0-9,20-29"}),
        ("GET", {"Want_Repr_Digest": "sha-512=10"}),
        ("GET", {"Want_Repr_Digest": "sha-512=10, sha-256=1"}),
        ("GET", {"Want_Repr_Digest": "nonsense!"}),
    ):
        answer = await edge.get(object_path(cid), tenant, method, **fields)
        assert answer.headers["Repr-Digest"] == _digest(data)
    unwanted = await edge.get(object_path(cid), tenant, Want_Repr_Digest="sha-256=0")
    assert "Repr-Digest" not in unwanted.headers


async def test_the_digest_of_what_is_sent_is_told_to_who_wants_it(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    data = some_bytes(300_000)
    cid = world.chain.add(data)
    for part, sent in (("bytes=0-999", data[:1000]), ("bytes=-1", data[-1:])):
        answer = await edge.get(
            object_path(cid), tenant, Range=part, Want_Content_Digest="sha-256=3"
        )
        assert answer.headers["Content-Digest"] == _digest(sent)
    for fields in ({"Want_Content_Digest": "sha-256=0"}, {"Want_Content_Digest": "md5=1"}, {}):
        answer = await edge.get(object_path(cid), tenant, Range="bytes=0-9", **fields)
        assert "Content-Digest" not in answer.headers
    whole = await edge.get(object_path(cid), tenant, Want_Content_Digest="sha-256=1")
    assert "Content-Digest" not in whole.headers, "longer than what is at hand before the head"


async def test_age_is_how_long_nobody_asked_the_network(world: World, tenant: Tenant) -> None:
    final = world.chain.add(b"final")
    new = world.chain.add(b"new", finality=chain_pb2.FINALITY_LATEST)
    async with world.edge(finality_recheck_s=60.0) as edge:
        for cid in (final, new):
            miss = await edge.get(object_path(cid), tenant)
            assert "Age" not in miss.headers, "it comes from the network"
            await edge.cached(cid)
            assert (await edge.get(object_path(cid), tenant)).headers["Age"] == "0"

        async def age(cid: str) -> int:
            return int((await edge.get(object_path(cid), tenant)).headers["Age"])

        async def is_older() -> bool:
            return await age(new) > 0

        await until(is_older)
        assert await age(final) == 0, "what is final stays true"
