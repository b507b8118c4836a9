"""Transport security of servers and clients: PEM bytes, whichever library uses them."""

from __future__ import annotations

from dataclasses import dataclass

from services.process.settings import ClientSettings, ServerSettings


@dataclass(frozen=True, slots=True)
class ServerTls:
    """A server's certificate; with ``client_ca`` callers must show one of theirs (mTLS)."""

    certificate: bytes
    key: bytes
    client_ca: bytes | None = None

    @staticmethod
    def of(settings: ServerSettings) -> ServerTls | None:
        """What the settings name; None for plain text. Raises OSError."""
        if settings.tls_certificate_file is None or settings.tls_key_file is None:
            return None
        ca_file = settings.tls_client_ca_file
        return ServerTls(
            certificate=settings.tls_certificate_file.read_bytes(),
            key=settings.tls_key_file.read_bytes(),
            client_ca=None if ca_file is None else ca_file.read_bytes(),
        )


@dataclass(frozen=True, slots=True)
class ClientTls:
    """Whom a client trusts, and the certificate that it shows (mTLS)."""

    ca: bytes
    certificate: bytes | None = None
    key: bytes | None = None

    @staticmethod
    def of(settings: ClientSettings) -> ClientTls | None:
        """What the settings name; None for plain text. Raises OSError."""
        if settings.peer_ca_file is None:
            return None
        certificate, key = settings.peer_certificate_file, settings.peer_key_file
        return ClientTls(
            ca=settings.peer_ca_file.read_bytes(),
            certificate=None if certificate is None else certificate.read_bytes(),
            key=None if key is None else key.read_bytes(),
        )
