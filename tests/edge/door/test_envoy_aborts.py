"""Downloads through Envoy that are broken off at random points: never free, never double.

What is captured is what Envoy handed to the reader's connection. That is all that reached the
reader's machine, and at most IN_FLIGHT beyond it: what the kernel holds unsent (by the deployed
TCP_NOTSENT_LOWAT), what is on its way (the reader's receive window), and what Envoy had buffered
(its limit, and one more slice of the upstream).
"""

from __future__ import annotations

import random
import socket
import struct
import time

from tests.edge.conftest import RunningEdge, Tenant, World, some_bytes, until
from tests.edge.door.paid import captured_by_path
from tests.support.envoy_proxy import EnvoyProxy
from tests.support.file_server import FileServer
from tests.support.http2_peer import Http2Peer
from tests.support.ledger_audit import audit_account
from tests.support.on_threads import on_threads
from tests.support.raw_reader import RawReader

SIZE = 1024 * 1024
BY_HTTP1, BY_HTTP2 = 800, 200
GIVEN_UP, GIVEN_UP_S = 400, 0.02
UNSENT, BUFFERED, SLICE = 128 * 1024, 64 * 1024, 64 * 1024
RECEIVE_WINDOW = 128 * 1024  # the kernel takes SO_RCVBUF, 64 KiB, twice
IN_FLIGHT = UNSENT + RECEIVE_WINDOW + BUFFERED + SLICE


async def test_downloads_that_are_broken_off_pay_for_what_was_sent(
    world: World,
    edge: RunningEdge,
    proxy: EnvoyProxy,
    files: FileServer,
    tenant: Tenant,
    dice: random.Random,
) -> None:
    path = files.add("film", some_bytes(SIZE))
    received: dict[str, int] = {}

    def break_off(name: str, at: int) -> None:
        reader = RawReader("127.0.0.1", proxy.port)
        try:
            reader.request(name, tenant.headers)
            reader.read(at)
            received[name] = reader.arrived_so_far()
        finally:
            reader.close(reset=at % 2 == 0)

    points = [(f"{path}*{number}", dice.randrange(1, SIZE + 1)) for number in range(BY_HTTP1)]
    await on_threads(break_off, points, at_once=16)
    for start in range(BY_HTTP1, BY_HTTP1 + BY_HTTP2, 10):
        names = [f"{path}*{number}" for number in range(start, start + 10)]
        received |= await _broken_off_by_http2(proxy, tenant, names, dice)
    await until(lambda: not edge.edge.door.open_tickets, "all are reported")
    audit = await audit_account(world.credits, tenant.account_id, until_settled=True)
    captured = captured_by_path(audit, "edge")
    assert captured.keys() == received.keys(), "each is paid once"
    beyond = {name: captured[name] - got for name, got in received.items()}
    print(f"beyond what was received: at most {max(beyond.values())} bytes")  # noqa: T201 (a figure)
    assert min(beyond.values()) >= 0, "nothing that was received is free"
    assert max(beyond.values()) <= IN_FLIGHT, "nothing is paid that was not sent"


async def test_requests_that_are_given_up_at_once_leave_no_ticket_behind(
    world: World,
    edge: RunningEdge,
    proxy: EnvoyProxy,
    files: FileServer,
    tenant: Tenant,
    dice: random.Random,
) -> None:
    path = files.add("film", some_bytes(SIZE))
    delays = [dice.random() * GIVEN_UP_S for _ in range(GIVEN_UP)]

    def give_up(number: int) -> None:
        with socket.create_connection(("127.0.0.1", proxy.port)) as reader:
            lines = f"GET {path}*{number} HTTP/1.1\r\nHost: edge\r\nX-API-Key: {tenant.key}\r\n\r\n"
            reader.sendall(lines.encode())
            time.sleep(delays[number])  # anywhere between the request and the first bytes
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    await on_threads(give_up, [(number,) for number in range(GIVEN_UP)], at_once=8)
    await until(lambda: not edge.edge.door.open_tickets, "none waits for a report")
    audit = await audit_account(world.credits, tenant.account_id, until_settled=True)
    captured = captured_by_path(audit, "edge")
    print(f"{len(files.seen)} got as far as the files, {len(captured)} paid")  # noqa: T201 (figures)
    assert max(captured.values(), default=0) <= IN_FLIGHT


async def _broken_off_by_http2(
    proxy: EnvoyProxy, tenant: Tenant, names: list[str], dice: random.Random
) -> dict[str, int]:
    """Streams of one connection, each reset at some point; what was received of each."""
    received = {}
    async with Http2Peer.connected(proxy.address) as peer:
        for name in names:
            headers = {":method": "GET", ":scheme": "http", ":path": name, ":authority": "edge"}
            stream = await peer.start({**headers, "x-api-key": tenant.key}, end=True)
            answer = await peer.until_body(stream, dice.randrange(1, SIZE + 1))
            received[name] = len(answer.body)
            if not answer.ended:
                peer.reset(stream)
    return received
