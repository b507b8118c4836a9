"""Requests on their way to an origin: what is asked of whom, and which fields go along.

The credentials by which the edge admits are the edge's, and stop here; so does all that fronts and
the edge say to one another, the fronts' secret above all. So do cookies, unless the
origin's options say otherwise: pages of different origins share the edge's host, and a cookie that
one sets would be sent to all. What clients say of who they are (Forwarded, X-Forwarded-...) is
replaced by what the edge sees.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from services.edge.admission import Client
from services.edge.http.exchange import Exchange
from services.edge.http.problems import PathNotFoundError
from services.edge.origins.client import OriginClient
from services.edge.origins.errors import LoopError
from services.edge.origins.fields import (
    Fields,
    directives,
    end_to_end,
    lines_of,
    split_list,
    value_of,
)
from services.edge.origins.options import OriginOptions
from services.rpc.errors import InvalidArgumentError

_OWN_CREDENTIAL = "tm_"
_MOST_EDGES = 8
_REPLACED = frozenset({b"host", b"expect", b"via", b"forwarded", b"x-real-ip", b"max-forwards"})
_REPLACED_PREFIXES = (b"x-forwarded-", b"tollmesh-")
PRODUCT = "tollmesh"
"""What the pseudonyms of edges in Via begin with."""


class Origin:
    """An origin: what is said of it, and who talks to it."""

    def __init__(self, name: str, options: OriginOptions) -> None:
        parts = urlsplit(options.url)
        self.name = name
        self.options = options
        self.defaults = options.defaults
        self.base = f"{parts.scheme}://{parts.netloc}"
        self.host = parts.netloc.encode("ascii")
        self.prefix = parts.path
        self.client = OriginClient(
            options.url,
            connections=options.connections,
            connect_s=options.connect_s,
            answer_s=options.answer_s,
            idle_s=options.idle_s,
            tls=ssl.create_default_context(cafile=options.ca_file),
        )


@dataclass(slots=True)
class Asked:
    """A request, as it goes to an origin."""

    origin: Origin
    method: str
    target: str
    """Path and query there."""
    fields: Fields
    directives: Mapping[str, str | None]
    """Of Cache-Control, as far as they are heeded."""
    authorized: bool
    """Whether it has credentials of the origin's."""
    has_body: bool

    @property
    def key(self) -> tuple[str, str]:
        """What it is about, in the store."""
        return self.origin.name, self.target

    @property
    def url(self) -> str:
        """What it is about, at the origin."""
        return self.origin.base + self.target


def own_credential(client: Client) -> bool:
    """Whether a request came with a credential of ours."""
    return client.credential.startswith(_OWN_CREDENTIAL)


def path_below(exchange: Exchange) -> tuple[str, str]:
    """The origin's name and the path behind it, without dot segments (RFC 3986, section 5.2.4).

    Raises InvalidArgumentError when an origin could read it as leading elsewhere, and
    PathNotFoundError.
    """
    segments = exchange.raw_path.decode("latin-1").split("/")
    if len(segments) < 3 or unquote(segments[1]) != "origins":
        raise PathNotFoundError  # a slash was encoded
    name, rest = unquote(segments[2]), segments[3:]
    kept: list[str] = []
    for index, segment in enumerate(rest):
        plain = segment.lower().replace("%2e", ".")
        if plain not in {".", ".."}:
            kept.append(segment)
            continue
        if plain == ".." and kept:
            kept.pop()
        if index == len(rest) - 1:
            kept.append("")
    path = "/" + "/".join(kept)
    if ".." in unquote(path).replace("\\", "/").split("/"):
        raise InvalidArgumentError("The path leads out of the origin.")
    return name, path


def asked_of(exchange: Exchange, origin: Origin, path: str, pseudonym: str) -> Asked:
    """The request that an exchange becomes. Raises LoopError."""
    options = origin.options
    credentials = lines_of(exchange.fields, b"authorization")
    authorized = any(not _is_own(credential) for credential in credentials)
    fields = [field for field in end_to_end(exchange.fields) if not _stops_here(field, options)]
    fields.append((b"host", origin.host))
    fields.append((b"via", _via(exchange, pseudonym)))
    if options.forwarded:
        fields.append((b"forwarded", _forwarded(exchange)))
    has_body = "transfer-encoding" in exchange.headers or exchange.headers.get(
        "content-length", "0"
    ) not in {"", "0"}
    said = directives(exchange.headers.get("cache-control"))
    if "cache-control" not in exchange.headers and "no-cache" in directives(
        exchange.headers.get("pragma")
    ):
        said = {"no-cache": None}
    heeded = said if options.request_directives else _binding(said)
    target = target_of(exchange, origin, path)
    return Asked(origin, exchange.method, target, fields, heeded, authorized, has_body)


def target_of(exchange: Exchange, origin: Origin, path: str) -> str:
    """Path and query, as the origin gets them."""
    query = exchange.raw_query.decode("latin-1")
    return origin.prefix + path + (f"?{query}" if query else "")


def _binding(said: Mapping[str, str | None]) -> dict[str, str | None]:
    """What is heeded of clients that may not demand fresh answers."""
    return {name: said[name] for name in ("no-store", "only-if-cached") if name in said}


def _stops_here(field: tuple[bytes, bytes], options: OriginOptions) -> bool:
    name, value = field
    if name in _REPLACED or name.startswith(_REPLACED_PREFIXES):
        return True
    if name == b"authorization":
        goes_on = options.authorization and options.sponsor
        return not goes_on or _is_own(value.decode("latin-1"))
    if name == b"x-api-key":
        # Without a sponsor it is how the caller was admitted.
        return not options.sponsor or value.startswith(_OWN_CREDENTIAL.encode())
    return name == b"cookie" and not options.cookies


def _is_own(authorization: str) -> bool:
    scheme, _, credential = authorization.partition(" ")
    return scheme.lower() == "bearer" and credential.strip().startswith(_OWN_CREDENTIAL)


def _via(exchange: Exchange, pseudonym: str) -> bytes:
    """Via with this edge at its end (RFC 9110, section 7.6.3). Raises LoopError."""
    steps = split_list(value_of(exchange.fields, b"via"))
    names = [step.split()[1] for step in steps if len(step.split()) > 1]
    edges = [name for name in names if name.startswith(f"{PRODUCT}-")]
    if pseudonym in edges or len(edges) >= _MOST_EDGES:
        raise LoopError("The request has come here before.")
    return ", ".join([*steps, f"{exchange.http_version} {pseudonym}"]).encode("latin-1")


def _forwarded(exchange: Exchange) -> bytes:
    """Forwarded (RFC 7239), of the one step that is known."""
    address = exchange.client.ip_address
    node = f'"[{address}]"' if ":" in address else address or "unknown"
    host = exchange.headers.get("host", "")
    quoted = host.replace("\\", "").replace('"', "")
    return f'for={node};host="{quoted}"'.encode("latin-1")
