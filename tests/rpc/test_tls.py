"""TLS and mTLS: who is let in, and what name the server gives them."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.process.settings import ClientSettings, ServerSettings
from services.rpc.call import Call
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError
from services.rpc.server import Server
from services.rpc.tls import ClientTls, ServerTls
from tests.support.certificates import Authority, Certificate
from tests.support.echo_service import EchoServicer, Message, pb, pb_grpc


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def _server(server: Certificate, client_ca: Authority | None) -> Server:
    async def who(_: Message, call: Call) -> Message:
        return pb.SayResponse(text=call.identity)

    settings = ServerSettings(
        tls_certificate_file=server.certificate_file,
        tls_key_file=server.key_file,
        tls_client_ca_file=None if client_ca is None else client_ca.own.certificate_file,
    )
    return Server(
        listen=settings.listen, servicers=[EchoServicer(who=who)], tls=ServerTls.of(settings)
    )


def _client(authority: Authority, shown: Certificate | None = None) -> ClientTls | None:
    return ClientTls.of(
        ClientSettings(
            peer_ca_file=authority.own.certificate_file,
            peer_certificate_file=None if shown is None else shown.certificate_file,
            peer_key_file=None if shown is None else shown.key_file,
        )
    )


async def _identity(server: Server, tls: ClientTls | None) -> str:
    async with connect(server.address, tls=tls) as channel:
        answer = await pb_grpc.EchoServiceStub(channel).Say(pb.SayRequest(behaviour="who"))
        return str(answer.text)


async def test_with_tls_the_server_is_proved_and_the_caller_has_no_name(
    authority: Authority,
) -> None:
    async with _server(authority.sign("credits"), None) as server:
        assert await _identity(server, _client(authority)) == ""


async def test_with_mtls_the_caller_has_its_certificates_name(authority: Authority) -> None:
    async with _server(authority.sign("credits"), authority) as server:
        assert await _identity(server, _client(authority, authority.sign("edge"))) == "edge"


async def test_with_mtls_a_caller_without_a_certificate_is_turned_away(
    authority: Authority,
) -> None:
    async with _server(authority.sign("credits"), authority) as server:
        with pytest.raises(DependencyUnavailableError):
            await _identity(server, _client(authority))


async def test_with_mtls_a_certificate_of_another_authority_is_turned_away(
    authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger").sign("edge")
    async with _server(authority.sign("credits"), authority) as server:
        with pytest.raises(DependencyUnavailableError):
            await _identity(server, _client(authority, stranger))


async def test_a_server_of_another_authority_is_not_spoken_to(
    authority: Authority, tmp_path: Path
) -> None:
    async with _server(Authority(tmp_path, "stranger").sign("credits"), None) as server:
        with pytest.raises(DependencyUnavailableError):
            await _identity(server, _client(authority))


async def test_a_plain_text_caller_is_turned_away(authority: Authority) -> None:
    async with _server(authority.sign("credits"), None) as server:
        with pytest.raises(DependencyUnavailableError):
            await _identity(server, None)


async def test_a_certificate_that_is_none_is_an_error_at_start(tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("not a certificate")
    with pytest.raises((OSError, RuntimeError)):
        await _server(Certificate(nonsense, nonsense), None).start()


def test_plain_text_is_the_default() -> None:
    assert ServerTls.of(ServerSettings()) is None
    assert ClientTls.of(ClientSettings()) is None
