"""Request ids and traces, across hops."""

from __future__ import annotations

import re

import pytest

from services.rpc.call import Call
from services.rpc.trace import request_id_of, trace_id_of, trace_parent_of
from tests.rpc.conftest import ServeEcho
from tests.support.echo_service import EchoServicer, Message, pb

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
WELL_FORMED = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


async def test_ids_cross_two_hops(serve_echo: ServeEcho) -> None:
    seen: list[Call] = []

    async def look(_: Message, call: Call) -> Message:
        seen.append(call)
        return pb.SayResponse()

    async with serve_echo(EchoServicer(look=look)) as (last, _):

        async def pass_on(_: Message, call: Call) -> Message:
            seen.append(call)
            await last.Say(pb.SayRequest(behaviour="look"), metadata=(("x-own", "1"),))
            [answer async for answer in last.Count(pb.SayRequest(behaviour="look"))]
            return pb.SayResponse()

        async with serve_echo(EchoServicer(look=pass_on)) as (first, _):
            ids = (("x-request-id", "r-1"), ("traceparent", PARENT))
            await first.Say(pb.SayRequest(behaviour="look"), metadata=ids)
    assert [call.request_id for call in seen] == ["r-1"] * 3
    assert {trace_id_of(call.trace_parent) for call in seen} == {TRACE_ID}
    spans = {call.trace_parent[36:52] for call in seen}
    assert len(spans) == 3
    assert "b7ad6b7169203331" not in spans
    assert seen[1].metadata["x-own"] == "1"
    assert seen[1].metadata["traceparent"] == seen[0].trace_parent


async def test_a_call_without_ids_gets_new_ones(serve_echo: ServeEcho) -> None:
    seen: list[Call] = []

    async def look(_: Message, call: Call) -> Message:
        seen.append(call)
        return pb.SayResponse()

    async with serve_echo(EchoServicer(look=look)) as (stub, _):
        for _ in range(2):
            await stub.Say(pb.SayRequest(behaviour="look"))
    assert len({call.request_id for call in seen} - {""}) == 2
    assert len({trace_id_of(call.trace_parent) for call in seen}) == 2
    assert all(WELL_FORMED.fullmatch(call.trace_parent) for call in seen)


@pytest.mark.parametrize("hostile", ["", "a b", 'x"}', "line\nbreak", "x" * 129, "\x1b[31m"])
def test_a_request_id_that_could_spoil_a_log_is_replaced(hostile: str) -> None:
    assert re.fullmatch("[0-9a-f]{24}", request_id_of(hostile))


@pytest.mark.parametrize(
    "malformed",
    [
        None,
        "",
        PARENT + "-00",
        PARENT.upper(),
        PARENT.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
    ],
)
def test_a_trace_that_is_not_w3cs_is_replaced(malformed: str | None) -> None:
    fresh = trace_parent_of(malformed)
    assert WELL_FORMED.fullmatch(fresh)
    assert trace_id_of(fresh) != TRACE_ID


def test_the_callers_sampling_decision_stays() -> None:
    assert trace_parent_of(PARENT).endswith("-01")
    assert trace_parent_of(PARENT[:-2] + "00").endswith("-00")
