"""One request to the origin for all who want the same; what is not for all holds nobody up."""

from __future__ import annotations

import asyncio

from tests.edge.conftest import until
from tests.edge.origins.conftest import Fronted
from tests.support.deadline import DEADLINE_S
from tests.support.http_origin import Request, Script, answer, head

CALLERS = 20


def gated(gate: asyncio.Event, script: Script) -> Script:
    """Answers once the gate is open."""

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await script(request, writer)

    return write


async def test_many_who_ask_at_once_are_one_request(fronted: Fronted) -> None:
    gate = asyncio.Event()
    fronted.origin.on("/a", gated(gate, answer(200, b"shared", cache_control="max-age=60")))
    asking = [asyncio.create_task(fronted.get("/a")) for _ in range(CALLERS)]
    await until(lambda: fronted.origin.asked("/a") > 0)
    gate.set()
    answers = await asyncio.gather(*asking)
    assert {each.body for each in answers} == {b"shared"}
    assert fronted.origin.asked("/a") == 1
    told = [each.headers["cache-status"] for each in answers]
    assert sum("fwd=uri-miss" in each and "collapsed" not in each for each in told) == 1


async def test_what_may_not_be_shared_is_asked_for_side_by_side(fronted: Fronted) -> None:
    waiting = asyncio.Event()

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        first = fronted.origin.asked("/own") == 1
        if not first:
            # None of those who waited is answered before all have asked.
            await until(lambda: fronted.origin.asked("/own") == CALLERS)
        else:
            await waiting.wait()
        await answer(200, b"own", cache_control="private")(request, writer)

    fronted.origin.on("/own", write)
    asking = [asyncio.create_task(fronted.get("/own")) for _ in range(CALLERS)]
    await until(lambda: fronted.origin.asked("/own") == 1)
    waiting.set()
    answers = await asyncio.gather(*asking)
    assert {each.body for each in answers} == {b"own"}
    assert fronted.origin.asked("/own") == CALLERS


async def test_each_variant_is_asked_for_once(fronted: Fronted) -> None:
    gate = asyncio.Event()

    async def write(request: Request, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        body = (request["accept-language"] or "").encode()
        script = answer(200, body, cache_control="max-age=60", vary="Accept-Language")
        await script(request, writer)

    fronted.origin.on("/v", write)
    languages = ["de", "en", "fr"] * 5
    asking = [asyncio.create_task(fronted.get("/v", accept_language=each)) for each in languages]
    await until(lambda: fronted.origin.asked("/v") > 0)
    gate.set()
    answers = await asyncio.gather(*asking)
    assert [each.body.decode() for each in answers] == languages
    assert fronted.origin.asked("/v") == 3


async def test_those_who_come_late_read_what_has_arrived_and_then_the_rest(
    fronted: Fronted,
) -> None:
    gate = asyncio.Event()

    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"cache-control": "max-age=60", "content-length": "10"}
        writer.write(head(200, fields) + b"first")
        await writer.drain()
        await gate.wait()
        writer.write(b"-rest")

    fronted.origin.on("/slow", write)
    async with fronted.edge.session.get("/origins/site/slow") as early:
        assert await early.content.readexactly(5) == b"first"  # before the rest is there
        async with fronted.edge.session.get("/origins/site/slow") as late:
            assert "collapsed" in late.headers["cache-status"]
            assert await late.content.readexactly(5) == b"first"
            part = await fronted.get("/slow", range="bytes=1-3")
            assert (part.status, part.body) == (206, b"irs")
            gate.set()
            assert await late.content.read() == b"-rest"
        assert await early.content.read() == b"-rest"
    assert fronted.origin.asked("/slow") == 1
    assert (await fronted.get("/slow")).headers["cache-status"].startswith('"test"; hit')


async def test_a_reader_that_leaves_does_not_end_what_others_wait_for(fronted: Fronted) -> None:
    gate = asyncio.Event()
    fronted.origin.on("/a", gated(gate, answer(200, b"shared", cache_control="max-age=60")))
    leaver = asyncio.create_task(fronted.get("/a"))
    await until(lambda: fronted.origin.asked("/a") == 1)
    stayer = asyncio.create_task(fronted.get("/a"))
    await asyncio.sleep(0)
    leaver.cancel()
    await asyncio.wait({leaver})
    gate.set()
    assert (await stayer).body == b"shared"


async def test_what_nobody_waits_for_any_more_is_not_fetched_on(fronted: Fronted) -> None:
    ended = asyncio.Event()

    async def write(_: Request, writer: asyncio.StreamWriter) -> None:
        fields = {"cache-control": "max-age=60", "content-length": "1000000"}
        writer.write(head(200, fields))

        def is_ended() -> bool:
            writer.write(b"1")
            return writer.transport.is_closing()

        await until(is_ended)
        ended.set()

    fronted.origin.on("/gone", write)
    async with fronted.edge.session.get("/origins/site/gone") as response:
        await response.content.readexactly(1)
        response.close()
    await asyncio.wait_for(ended.wait(), DEADLINE_S)
    fronted.origin.on("/gone", answer(200, b"new", cache_control="max-age=60"))
    assert (await fronted.get("/gone")).body == b"new"
