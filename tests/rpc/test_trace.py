"""Request ids and traces, across hops."""

from __future__ import annotations

import re

import pytest

from services.rpc.trace import request_id_of, trace_id_of, trace_parent_of
from tests.rpc.conftest import Stub
from tests.support.echo_server import EchoServer
from tests.support.echo_service import pb

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
WELL_FORMED = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


LOOK = pb.SayRequest(behaviour="look")


async def test_ids_cross_two_hops(echo: EchoServer, stub: Stub) -> None:
    request = pb.SayRequest(behaviour="forward", target=echo.address, next=LOOK)
    ids = (("x-request-id", "r-1"), ("traceparent", PARENT))
    seen = (await stub.Say(request, metadata=ids)).seen
    assert (seen["first.request_id"], seen["request_id"]) == ("r-1", "r-1")
    parents = [seen["first.trace_parent"], seen["trace_parent"]]
    assert {trace_id_of(parent) for parent in parents} == {TRACE_ID}
    assert len({PARENT[36:52], *(parent[36:52] for parent in parents)}) == 3
    assert seen["metadata.traceparent"] == seen["first.trace_parent"]
    line = await echo.until_logged("call", request_id="r-1")
    assert line["trace_id"] == TRACE_ID


async def test_a_call_without_ids_gets_new_ones(stub: Stub) -> None:
    seen = [(await stub.Say(LOOK)).seen for _ in range(2)]
    assert len({each["request_id"] for each in seen} - {""}) == 2
    assert len({trace_id_of(each["trace_parent"]) for each in seen}) == 2
    assert all(WELL_FORMED.fullmatch(each["trace_parent"]) for each in seen)


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
