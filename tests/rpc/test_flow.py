"""Back-pressure: whoever is slow slows the other side down, and costs the server little memory."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import grpc

from tests.rpc.conftest import Stub
from tests.support.deadline import DEADLINE_S
from tests.support.echo_server import EchoServer
from tests.support.echo_service import Message, pb
from tests.support.http2_peer import Http2Peer, framed, request_headers

COUNT = "/tests.echo.v1.EchoService/Count"
JOIN = "/tests.echo.v1.EchoService/Join"
CHAT = "/tests.echo.v1.EchoService/Chat"
MIB = 1024 * 1024
CHUNK = 64 * 1024
SETTLED_S = 0.2


async def _progress(stub: Stub, key: str) -> int:
    return int((await stub.Say(pb.SayRequest(behaviour="progress", text=key))).text)


async def _settled(stub: Stub, key: str) -> int:
    """How far a handler got, once it gets no further."""
    async with asyncio.timeout(DEADLINE_S):
        before = -1
        while (now := await _progress(stub, key)) != before or now == 0:
            before = now
            await asyncio.sleep(SETTLED_S)
    return now


async def _further(stub: Stub, key: str, than: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while await _progress(stub, key) <= than:  # noqa: ASYNC110 (another process)
            await asyncio.sleep(0.01)


def _endless(key: str) -> Message:
    return pb.SayRequest(behaviour="endless", payload=bytes(CHUNK), key=key)


async def test_a_slow_reader_stops_a_fast_handler(echo: EchoServer, stub: Stub, key: str) -> None:
    async with Http2Peer.connected(echo.address) as peer:
        peer.reading = False
        stream = await peer.call(COUNT, _endless(key))
        sent = await _settled(stub, key)
        assert sent * CHUNK < 8 * MIB
        peer.resume(stream)
        await _further(stub, key, sent + 100)
    await echo.until_step(key, "cleaned_up")


async def test_a_slow_reader_of_one_stream_leaves_the_others_alone(
    echo: EchoServer, plain_stub: Stub, key: str
) -> None:
    slow = plain_stub.Count(_endless(key))
    await slow.read()
    await _settled(plain_stub, key)
    answers = plain_stub.Count(pb.SayRequest(text="a", times=1000))
    assert len([answer async for answer in answers]) == 1000
    slow.cancel()
    await echo.until_step(key, "cleaned_up")


async def test_stalled_readers_cost_little_memory(echo: EchoServer, stub: Stub, key: str) -> None:
    before = echo.resident_bytes()
    keys = [f"{key[:5]}{number:03}" for number in range(20)]
    async with AsyncExitStack() as stack:
        for own in keys:
            peer = await stack.enter_async_context(Http2Peer.connected(echo.address))
            peer.reading = False
            await peer.call(COUNT, _endless(own))
        await asyncio.gather(*(_settled(stub, own) for own in keys))
        assert echo.resident_bytes() - before < 20 * 4 * MIB
    for own in keys:
        await echo.until_step(own, "cleaned_up")


async def test_a_slow_handler_stops_a_fast_uploader(echo: EchoServer, stub: Stub, key: str) -> None:
    hold = pb.SayRequest(behaviour="hold", key=key).SerializeToString()
    chunk = framed(pb.SayRequest(payload=bytes(CHUNK)).SerializeToString())
    before = echo.resident_bytes()
    for path in (JOIN, CHAT):
        async with Http2Peer.connected(echo.address) as peer:
            stream = await peer.start(request_headers(path))
            await peer.send(stream, framed(hold))
            await echo.until_step(key, "entered")
            taken = await _until_stopped(peer, stream, chunk)
            assert taken < 32 * MIB
    assert echo.resident_bytes() - before < 64 * MIB
    await stub.Say(pb.SayRequest(text="on"))
    echo.open_gate(key)


async def _until_stopped(peer: Http2Peer, stream: int, chunk: bytes) -> int:
    """Sends until the server takes no more for a while; gives the bytes that it took."""
    taken = 0
    while taken < 64 * MIB:
        try:
            async with asyncio.timeout(SETTLED_S):
                await peer.send(stream, chunk)
        except TimeoutError:
            return taken
        taken += len(chunk)
    return taken


async def test_what_was_held_back_arrives_whole(echo: EchoServer, stub: Stub, key: str) -> None:
    upload = stub.Join()
    await upload.write(pb.SayRequest(behaviour="hold", key=key))
    await echo.until_step(key, "entered")

    async def send() -> None:
        for _ in range(300):
            await upload.write(pb.SayRequest(payload=bytes(CHUNK)))
        await upload.done_writing()

    sending = asyncio.create_task(send())
    await asyncio.sleep(SETTLED_S)
    assert not sending.done()
    assert await _progress(stub, key) == 1
    echo.open_gate(key)
    await sending
    assert (await upload).text == "done"
    assert await _progress(stub, key) == 301


async def test_nobody_needs_to_read_while_it_writes(stub: Stub) -> None:
    """A conversation whose sides both send first, more than any window holds, still ends."""
    chat = stub.Chat()
    payload = bytes(CHUNK)

    async def send() -> None:
        for _ in range(100):
            await chat.write(pb.SayRequest(payload=payload))
        await chat.done_writing()

    sending = asyncio.create_task(send())
    read = 0
    while (answer := await chat.read()) is not grpc.aio.EOF:
        assert answer.payload == payload
        read += 1
    await sending
    assert read == 100
