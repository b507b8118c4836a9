"""Large answers: kept in files, or passed on where they are too large, at the readers' pace."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import pytest

from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import Request, Script, head

MEBIBYTE = 1024 * 1024
KEPT, TOO_LARGE = os.urandom(3 * MEBIBYTE), os.urandom(9 * MEBIBYTE)


@pytest.fixture
def settings() -> dict[str, Any]:
    return {
        "memory_object_bytes": 64 * 1024,
        "origin_memory_bytes": MEBIBYTE,
        "origin_disk_bytes": 8 * MEBIBYTE,
        "origin_object_bytes": 4 * MEBIBYTE,
    }


def large(body: bytes, framing: str) -> Script:
    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"cache-control": "max-age=60"}
        if framing == "length":
            writer.write(head(200, fields | {"content-length": str(len(body))}) + body)
        else:
            writer.write(head(200, fields | {"transfer-encoding": "chunked"}))
            writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))

    return write


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_large_answers_are_kept_in_files(fronted: Fronted, framing: str) -> None:
    fronted.origin.on("/a", large(KEPT, framing))
    origins = fronted.edge.edge.origins
    assert origins is not None
    for _ in range(3):
        assert (await fronted.get("/a")).body == KEPT
    assert (await fronted.get("/a", range="bytes=1000000-1999999")).body == KEPT[10**6 : 2 * 10**6]
    assert fronted.origin.asked("/a") == 1
    memory, disk = origins.stored_bytes
    assert disk == len(KEPT)
    assert memory < 10_000


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_what_is_too_large_is_passed_on_to_all_who_wait(
    fronted: Fronted, framing: str
) -> None:
    fronted.origin.on("/a", large(TOO_LARGE, framing))
    answers = await asyncio.gather(*(fronted.get("/a") for _ in range(4)))
    expected = hashlib.sha256(TOO_LARGE).digest()
    assert [hashlib.sha256(each.body).digest() for each in answers] == [expected] * 4
    origins = fronted.edge.edge.origins
    assert origins is not None
    assert origins.stored_bytes == (0, 0)
    paid = await fronted.sponsor.paid_bytes()
    assert paid == [len(TOO_LARGE)] * 4


async def test_answers_push_one_another_out_within_the_bounds(fronted: Fronted) -> None:
    origins = fronted.edge.edge.origins
    assert origins is not None
    for number in range(6):
        fronted.origin.on(f"/{number}", large(KEPT, "length"))
        assert (await fronted.get(f"/{number}")).body == KEPT
        assert origins.stored_bytes[1] <= 8 * MEBIBYTE
    assert (await fronted.get("/5")).headers["cache-status"].startswith('"test"; hit')
    await fronted.get("/0")
    assert fronted.origin.asked("/0") == 2
