"""A server whose connections take a while: over a long way, or on a busy machine."""

from __future__ import annotations

import asyncio

from services.rpc.client import connect
from tests.rpc.conftest import ServeEcho
from tests.support.echo_service import pb, pb_grpc

SETUP_S = 0.4


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_a_connection_that_takes_a_while_is_not_given_up(serve_echo: ServeEcho) -> None:
    pipes = set[asyncio.Task[None]]()
    async with serve_echo() as (_, server):
        host, _, port = server.address.rpartition(":")

        async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await asyncio.sleep(SETUP_S)
            there, back = await asyncio.open_connection(host, int(port))
            pipes.update(
                (
                    asyncio.create_task(_pipe(reader, back)),
                    asyncio.create_task(_pipe(there, writer)),
                )
            )

        async with await asyncio.start_server(late, "127.0.0.1", 0) as far:
            address = f"127.0.0.1:{far.sockets[0].getsockname()[1]}"
            async with connect(address) as channel:
                answer = await pb_grpc.EchoServiceStub(channel).Say(pb.SayRequest(text="hello"))
                assert answer.text == "hello"
    await asyncio.gather(*pipes)
