"""The headers that go with an object's bytes."""

from __future__ import annotations

import re
import time
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote

from services.edge.credit.payments import Payment
from services.edge.http.digests import repr_digest
from services.edge.http.exchange import NO_SNIFF
from services.edge.http.problems import Headers
from services.edge.objects import ObjectInfo

Field = tuple[bytes, bytes]

# Named by their hash, the bytes never change; "private": a shared cache would not meter them.
_FINAL = b"private, max-age=31536000, immutable"
# Until it is final, the object may vanish from the chain: ask each time (the ETag makes it cheap).
_NOT_FINAL = b"private, no-cache"

_MEDIA_TYPE = re.compile(
    r"[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}(; ?[a-z0-9-]+=[A-Za-z0-9._-]+)*"
).fullmatch
# What a browser runs rather than shows. A file must not act in the name of the edge's own site.
_ACTIVE = re.compile(
    r"text/(html|xml|xsl|javascript|ecmascript)|image/svg\+xml|application/"
    r"(xhtml\+xml|xml|javascript|ecmascript|x-javascript|[a-z0-9.+-]+\+xml)|multipart/.*"
).match
# Of a request whose object was not held; see Sources. "bypass": the settings keep the part out.
_FORWARDED = {
    "stored": "fwd=uri-miss; stored",
    "collapsed": "fwd=uri-miss; collapsed",
    "bypass": "fwd=bypass",
    "no-room": "fwd=uri-miss; detail=no-room",
}
_DESCRIPTION = {b"content-type", b"content-disposition", b"repr-digest"}
AVAILABLE = b"tollmesh-available"
"""What the account can spend besides, in an answer that costs."""
_SANDBOX = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox")


@lru_cache(8192)
def representation(
    info: ObjectInfo, disposition: str, sha256: bytes | None = None
) -> tuple[Field, ...]:
    """What is said of an object whether its bytes are sent or not, and whichever of them.

    Args:
        info: the object.
        disposition: ``inline`` or ``attachment``.
        sha256: of its bytes, if this edge knows.
    """
    kind = media_type(info)
    fields: Headers = [
        *validators(info),
        (b"content-type", kind),
        (b"content-disposition", content_disposition(disposition, info.name or info.cid)),
        (b"accept-ranges", b"bytes"),
        NO_SNIFF,
    ]
    if sha256 is not None:
        fields.append(repr_digest(sha256))
    if _ACTIVE(kind.decode("ascii")):
        fields.append(_SANDBOX)
    return tuple(fields)


@lru_cache(8192)
def whole_hit(
    info: ObjectInfo, disposition: str, sha256: bytes | None, region: str, detail: str
) -> tuple[Field, ...]:
    """The fields of a 200 with the whole of an object out of the cache (``detail``: memory, disk).

    What differs from answer to answer comes besides: Date, ``age``, ``cost``, CORS, the request's
    id.
    """
    return (
        *representation(info, disposition, sha256),
        (b"content-length", b"%d" % info.size_bytes),
        cache_status(region, hit=True, detail=detail),
    )


def validators(info: ObjectInfo) -> Headers:
    """What a 304 repeats (RFC 9110, section 15.4.5)."""
    return [
        (b"etag", b'"' + info.cid.encode("ascii") + b'"'),
        (b"cache-control", _FINAL if info.finalized else _NOT_FINAL),
        (b"vary", b"Authorization, X-API-Key"),
    ]


def without_description(fields: Iterable[Field]) -> Headers:
    """What a 206 keeps for who has the rest of the answer already (RFC 9110, section 15.3.7)."""
    return [field for field in fields if field[0] not in _DESCRIPTION]


def media_type(info: ObjectInfo) -> bytes:
    """As Content-Type has it; what an uploader wrote that is none is not repeated."""
    named = info.media_type.lower()
    return named.encode("ascii") if _MEDIA_TYPE(named) else b"application/octet-stream"


def age(info: ObjectInfo) -> Field:
    """Age (RFC 9111, section 5.1): since when nobody has asked the network about the object, in s.

    What is final needs no asking: it is as true now as it was then, and its bytes are their name.
    """
    seconds = 0 if info.finalized else time.monotonic() - info.seen_at
    return b"age", b"%d" % max(0, seconds)


@lru_cache(64)
def cache_status(region: str, *, hit: bool, detail: str) -> Field:
    """Cache-Status (RFC 9211): whether the cache had the object, and what was done if not."""
    parameters = f"hit; detail={detail}" if hit else _FORWARDED.get(detail, "fwd=uri-miss")
    return b"cache-status", f'"{region}"; {parameters}'.encode("ascii")


def cost(payment: Payment | None) -> Headers:
    """What the answer costs when all of it is sent, and what is left besides."""
    if payment is None:
        return [(b"tollmesh-cost", b"0")]
    left = (AVAILABLE, b"%d" % payment.available)
    return [*price(payment.amount, payment.currency), left]


def price(amount: int, currency: str) -> Headers:
    """What the answer costs when all of it is sent."""
    return [
        (b"tollmesh-cost", b"%d" % amount),
        (b"tollmesh-currency", currency.encode("ascii", "replace")),
    ]


@lru_cache(4096)
def content_disposition(disposition: str, name: str) -> bytes:
    """Content-Disposition by RFC 6266 with the file's name by RFC 8187.

    The plain ``filename`` is for old clients: ASCII, without what a quoted string cannot hold.
    """
    name = "".join("_" if _is_unsafe(letter) else letter for letter in name).strip(". ") or "file"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    # Taken apart, a letter may have become what is not safe: some hold a slash or dots.
    plain = re.sub(r'["\\%/]', "_", plain).strip(". ") or "file"
    header = f'{disposition}; filename="{plain}"'
    if plain != name:
        header += f"; filename*=UTF-8''{quote(name, safe='')}"
    return header.encode("ascii")


def _is_unsafe(letter: str) -> bool:
    # Separators of paths, and what would hide or turn around parts of a name on a screen.
    return letter in "/\\" or unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
