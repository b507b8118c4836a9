"""Connections to origins serve one request after another, whatever became of the last one."""

from __future__ import annotations

import asyncio

from services.edge.origins.connection import OriginConnection
from tests.edge.conftest import until
from tests.support.http_origin import HttpOrigin, Request, answer, head


async def connected(origin: HttpOrigin) -> OriginConnection:
    host, _, port = origin.url.removeprefix("http://").partition(":")
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(OriginConnection, host, int(port))
    return connection


async def test_a_connection_listens_again_though_its_last_answer_was_not_read(
    origin: HttpOrigin,
) -> None:
    body = bytes(300_000)  # so much that reading was paused when the last of it came

    async def last(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head(200, {"content-length": str(len(body))}) + body)
        writer.close()

    origin.on("/a", answer(200, body))
    origin.on("/last", last)
    connection = await connected(origin)
    try:
        for path in ("/a", "/a", "/last"):
            connection.begin("GET", None)
            await connection.write(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path.encode())
            await until(lambda: connection.complete, f"{path} is answered")
            assert (await connection.head()).length == len(body)
        await until(lambda: connection.lost, "that the origin closed it is heard of")
    finally:
        connection.close()
