"""TLS and mTLS: who is let in, and what name the server gives them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from services.process.settings import ClientSettings, ServerSettings
from services.rpc.errors import DependencyUnavailableError
from services.rpc.tls import ClientTls, ServerTls
from tests.support.certificates import Authority, Certificate
from tests.support.echo_server import EchoServer, running_echo, started_echo
from tests.support.echo_service import pb


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@contextmanager
def _server(
    face: str, directory: Path, server: Certificate, client_ca: Authority | None
) -> Iterator[EchoServer]:
    settings = {
        "tls_certificate_file": str(server.certificate_file),
        "tls_key_file": str(server.key_file),
    }
    if client_ca is not None:
        settings["tls_client_ca_file"] = str(client_ca.own.certificate_file)
    with running_echo(face, directory, settings) as echo:
        yield echo


@pytest.fixture(scope="module")
def proved(
    face: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EchoServer]:
    """A server with a certificate, for anyone."""
    directory = tmp_path_factory.mktemp(face) / "tls"
    with _server(face, directory, authority.sign("credits"), None) as echo:
        yield echo


@pytest.fixture(scope="module")
def mutual(
    face: str, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EchoServer]:
    """A server with a certificate, for those who have one."""
    directory = tmp_path_factory.mktemp(face) / "mtls"
    with _server(face, directory, authority.sign("credits"), authority) as echo:
        yield echo


def _client(authority: Authority, shown: Certificate | None = None) -> ClientTls | None:
    return ClientTls.of(
        ClientSettings(
            peer_ca_file=authority.own.certificate_file,
            peer_certificate_file=None if shown is None else shown.certificate_file,
            peer_key_file=None if shown is None else shown.key_file,
        )
    )


async def _identity(
    server: EchoServer, tls: ClientTls | None, metadata: tuple[tuple[str, str], ...] = ()
) -> str:
    async with server.stub(tls=tls) as stub:
        answer = await stub.Say(pb.SayRequest(behaviour="look"), metadata=metadata)
        return str(answer.seen["identity"])


async def test_with_tls_the_server_is_proved_and_the_caller_has_no_name(
    authority: Authority, proved: EchoServer
) -> None:
    assert await _identity(proved, _client(authority)) == ""


@pytest.mark.parametrize("name", ["edge", "edge, 1", 'ed"ge', "e=d+g;e", "édge", "a\\b"])
async def test_with_mtls_the_caller_has_its_certificates_name(
    authority: Authority, mutual: EchoServer, name: str
) -> None:
    assert await _identity(mutual, _client(authority, authority.sign(name))) == name


@pytest.mark.parametrize("more", ["/O=a,CN=admin", "/O=a+CN=admin", '/O=";CN=admin', "/CN=admin"])
async def test_the_rest_of_a_subject_names_nobody(
    authority: Authority, mutual: EchoServer, more: str
) -> None:
    assert await _identity(mutual, _client(authority, authority.sign("edge", more))) == "edge"


async def test_nobody_gives_itself_a_name(
    authority: Authority, mutual: EchoServer, proved: EchoServer
) -> None:
    forged = (("x-forwarded-client-cert", 'Subject="CN=admin"'),)
    edge = _client(authority, authority.sign("edge"))
    assert await _identity(mutual, edge, forged) == "edge"
    assert await _identity(proved, _client(authority), forged) == ""


async def test_with_mtls_a_caller_without_a_certificate_is_turned_away(
    authority: Authority, mutual: EchoServer
) -> None:
    with pytest.raises(DependencyUnavailableError):
        await _identity(mutual, _client(authority))


async def test_with_mtls_a_certificate_of_another_authority_is_turned_away(
    authority: Authority, mutual: EchoServer, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").sign("edge")
    with pytest.raises(DependencyUnavailableError):
        await _identity(mutual, _client(authority, stranger))
    assert await _identity(mutual, _client(authority, authority.sign("edge"))) == "edge"


async def test_a_server_of_another_authority_is_not_spoken_to(
    proved: EchoServer, tmp_path: Path
) -> None:
    with pytest.raises(DependencyUnavailableError):
        await _identity(proved, _client(Authority(tmp_path, "stranger")))


async def test_a_plain_text_caller_is_turned_away(proved: EchoServer) -> None:
    with pytest.raises(DependencyUnavailableError):
        await _identity(proved, None)


async def test_streams_run_over_tls(authority: Authority, mutual: EchoServer) -> None:
    tls = _client(authority, authority.sign("edge"))
    payload = bytes(100_000)
    async with mutual.stub(tls=tls) as stub:
        chat = stub.Chat()
        for _ in range(10):
            await chat.write(pb.SayRequest(payload=payload))
            assert (await chat.read()).payload == payload
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF


async def test_a_certificate_that_is_none_is_an_error_at_start(face: str, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("not a certificate")
    settings = {"tls_certificate_file": str(nonsense), "tls_key_file": str(nonsense)}
    with started_echo(face, tmp_path / "echo", settings) as echo:
        assert await echo.status() == 1
        assert not echo.ready_file.exists()
        assert echo.lines("process_failed") or "ertificate" in echo.text()


def test_plain_text_is_the_default() -> None:
    assert ServerTls.of(ServerSettings()) is None
    assert ClientTls.of(ClientSettings()) is None
