"""HTTPS: the same bytes and the same bill; and certificates of clients, when they are asked for."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from tests.edge.conftest import RunningEdge, Tenant, World, object_path, some_bytes
from tests.support.certificates import Authority

SIZE = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def files(authority: Authority) -> dict[str, Path]:
    edge = authority.sign("edge")
    return {"tls_certificate_file": edge.certificate_file, "tls_key_file": edge.key_file}


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.own.certificate_file))


async def ask(
    edge: RunningEdge, tenant: Tenant, cid: str, tls: ssl.SSLContext
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Asks for an object; the streams behind the head of the answer."""
    reader, writer = await asyncio.open_connection(edge.host, edge.port, ssl=tls)
    lines = [f"GET {object_path(cid)} HTTP/1.1", "Host: e", f"X-API-Key: {tenant.key}", "", ""]
    writer.write("\r\n".join(lines).encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (OSError, asyncio.IncompleteReadError):
        writer.transport.abort()
        raise
    assert head.startswith(b"HTTP/1.1 200 ")
    return reader, writer


async def test_downloads_are_the_same_over_tls(
    world: World, tenant: Tenant, authority: Authority, files: dict[str, Path]
) -> None:
    data = some_bytes(SIZE)
    cid = world.chain.add(data)
    async with world.edge(**files) as edge:
        reader, writer = await ask(edge, tenant, cid, trusting(authority))
        assert await reader.readexactly(SIZE) == data
        writer.close()
        await writer.wait_closed()
        assert await tenant.paid_bytes() == [SIZE]


@pytest.mark.parametrize("polite", [True, False])
async def test_a_reader_that_leaves_pays_for_what_left_the_edge(
    world: World, tenant: Tenant, authority: Authority, files: dict[str, Path], polite: bool
) -> None:
    cid = world.chain.add(some_bytes(SIZE))
    async with world.edge(**files) as edge:
        reader, writer = await ask(edge, tenant, cid, trusting(authority))
        await reader.readexactly(300_000)
        if polite:
            writer.close()
        else:
            writer.transport.abort()
        [paid] = await tenant.paid_bytes()
        assert 300_000 <= paid < SIZE


async def test_without_a_certificate_nobody_gets_in_where_one_is_asked_for(
    world: World, tenant: Tenant, authority: Authority, files: dict[str, Path]
) -> None:
    cid = world.chain.add(b"hello")
    mutual = {**files, "tls_client_ca_file": authority.own.certificate_file}
    async with world.edge(**mutual) as edge:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await ask(edge, tenant, cid, trusting(authority))
        tls = trusting(authority)
        reader_cert = authority.sign("reader")
        tls.load_cert_chain(reader_cert.certificate_file, reader_cert.key_file)
        reader, writer = await ask(edge, tenant, cid, tls)
        assert await reader.readexactly(5) == b"hello"
        writer.close()
        await writer.wait_closed()
