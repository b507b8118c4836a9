"""The headers that go with an object's bytes."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from urllib.parse import quote

from services.edge.http.exchange import NO_SNIFF
from services.edge.http.problems import Headers
from services.edge.objects import ObjectInfo
from services.edge.payments import Payment

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
_SANDBOX = (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; sandbox")


def representation(info: ObjectInfo, disposition: str) -> Headers:
    """What is said of an object whether its bytes are sent or not.

    Args:
        info: the object.
        disposition: ``inline`` or ``attachment``.
    """
    media_type = info.media_type.lower()
    if not _MEDIA_TYPE(media_type):
        media_type = "application/octet-stream"
    headers: Headers = [
        *validators(info),
        (b"content-type", media_type.encode("ascii")),
        (b"content-disposition", content_disposition(disposition, info.name or info.cid)),
        (b"accept-ranges", b"bytes"),
        NO_SNIFF,
    ]
    if _ACTIVE(media_type):
        headers.append(_SANDBOX)
    return headers


def validators(info: ObjectInfo) -> Headers:
    """What a 304 repeats (RFC 9110, section 15.4.5)."""
    return [
        (b"etag", b'"' + info.cid.encode("ascii") + b'"'),
        (b"cache-control", _FINAL if info.finalized else _NOT_FINAL),
        (b"vary", b"Authorization, X-API-Key"),
    ]


def cache_status(region: str, *, hit: bool, detail: str) -> tuple[bytes, bytes]:
    """Cache-Status (RFC 9211): whether the cache had the object, and what was done if not."""
    if hit:
        parts = f"hit; detail={detail}"
    elif detail in {"stored", "collapsed"}:
        parts = f"fwd=uri-miss; {detail}"
    else:
        parts = f"fwd=uri-miss; detail={detail}"
    return b"cache-status", f'"{region}"; {parts}'.encode("ascii")


def cost(payment: Payment | None) -> Headers:
    """What the answer costs when all of it is sent, and what is left besides."""
    if payment is None:
        return [(b"tollmesh-cost", b"0")]
    return [
        (b"tollmesh-cost", b"%d" % payment.amount),
        (b"tollmesh-currency", payment.currency.encode("ascii", "replace")),
        (b"tollmesh-available", b"%d" % payment.available),
    ]


@lru_cache(4096)
def content_disposition(disposition: str, name: str) -> bytes:
    """Content-Disposition by RFC 6266 with the file's name by RFC 8187.

    The plain ``filename`` is for old clients: ASCII, without what a quoted string cannot hold.
    """
    name = "".join("_" if _is_unsafe(letter) else letter for letter in name).strip(". ") or "file"
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode("ascii")
    plain = re.sub(r'["\\%]', "_", plain) or "file"
    header = f'{disposition}; filename="{plain}"'
    if plain != name:
        header += f"; filename*=UTF-8''{quote(name, safe='')}"
    return header.encode("ascii")


def _is_unsafe(letter: str) -> bool:
    # Separators of paths, and what would hide or turn around parts of a name on a screen.
    return letter in "/\\" or unicodedata.category(letter) in {"Cc", "Cf", "Cs", "Zl", "Zp"}
