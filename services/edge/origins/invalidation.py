"""What an unsafe request that went well makes invalid (RFC 9111, section 4.4)."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

from services.edge.origins.fields import Fields, value_of

SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "SEARCH"})


def invalidated(status: int, url: str, fields: Fields) -> Iterator[str]:
    """The targets (path and query) whose stored responses are no longer to be used.

    Args:
        status: of the answer; nothing is invalid after an error.
        url: of the request, at the origin.
        fields: of the answer; Location and Content-Location count on the same origin only.
    """
    if not 200 <= status < 400:
        return
    yield _target(url)
    for name in (b"location", b"content-location"):
        reference = value_of(fields, name)
        if reference:
            other = same_origin_target(url, reference)
            if other is not None:
                yield other


def names_itself(url: str, fields: Fields) -> bool:
    """Whether Content-Location is the URL of the request itself."""
    reference = value_of(fields, b"content-location")
    return reference is not None and same_origin_target(url, reference) == _target(url)


def same_origin_target(url: str, reference: str) -> str | None:
    """The target of a reference, seen from a URL; None when it leads to another origin."""
    try:
        other = urljoin(url, reference)
        here, there = urlsplit(url), urlsplit(other)
        same = (here.scheme, here.hostname, here.port) == (there.scheme, there.hostname, there.port)
    except ValueError:
        return None
    return _target(other) if same else None


def _target(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
