"""What a client is told: TLS, retries, batching; and the channel options of both clients."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc


@dataclass(frozen=True)
class Tls:
    """TLS to the service; with a certificate and key of one's own, mutual TLS."""

    ca: bytes | None = None
    """PEM of the authorities to trust. None: those of the system."""
    certificate: bytes | None = None
    key: bytes | None = None
    server_name: str = ""
    """The name in the service's certificate, when it is not the target's host."""

    @classmethod
    def from_files(
        cls,
        *,
        ca: str | Path | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        server_name: str = "",
    ) -> Tls:
        """Reads PEM files. Raises OSError."""
        return cls(_read(ca), _read(certificate), _read(key), server_name)

    def credentials(self) -> grpc.ChannelCredentials:
        """As grpcio takes them."""
        return grpc.ssl_channel_credentials(self.ca, self.key, self.certificate)


@dataclass(frozen=True)
class Retries:
    """When and how often a call is repeated; see ``retrying``."""

    attempt_s: float = 3.0
    """After so long without an answer the call is sent again (with the same request id)."""
    first_s: float = 0.05
    """The first pause is random between 0 and this; each next one between 0 and twice as much."""
    longest_s: float = 2.0
    budget: int = 100
    """Retries in reserve. Each retry takes one; they come back with calls and with time."""
    budget_per_call: float = 0.2
    budget_per_s: float = 10.0


@dataclass(frozen=True)
class Batching:
    """How concurrent debits travel together."""

    window: int = 2
    """Calls of BatchDebit under way at once; debits that arrive meanwhile wait for the next."""
    least_debits: int = 100
    """As many go in one call, or all that wait; more are shared out to ``window`` calls."""
    max_debits: int = 1000
    max_bytes: int = 1_000_000
    """No more is put into a call once it has so many bytes."""
    max_waiting: int = 100_000
    """More debits at once raise QueueFull."""


def channel_options(tls: Tls | None) -> list[tuple[str, int | str]]:
    """Options of grpcio for either kind of channel."""
    options: list[tuple[str, int | str]] = [
        # A restarted service is found again at once, not after up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 50),
        ("grpc.min_reconnect_backoff_ms", 50),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.max_receive_message_length", 64 << 20),
        # Of several addresses, each has its share of the calls; one that fails has none.
        ("grpc.lb_policy_name", "round_robin"),
    ]
    if tls is not None and tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return options


def _read(path: str | Path | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()
