"""Which stored response a request may be answered with: Vary (RFC 9111, section 4.1)."""

from __future__ import annotations

from services.edge.origins.fields import Fields, lines_of, split_list, value_of

Selecting = tuple[tuple[bytes, str | None], ...]
"""The fields that Vary names, and what the request had there, in a comparable form."""

# Lists whose order means nothing: what counts is the weights.
_WEIGHED = frozenset({b"accept", b"accept-charset", b"accept-encoding", b"accept-language"})
_MOST_NAMES = 32


def selecting(vary: Fields, request: Fields) -> Selecting | None:
    """What a later request must have in common with this one; None when nothing is enough.

    Nothing is, either, when it would be more than a few fields: each request is compared in all.

    Args:
        vary: the response's fields.
        request: the request's fields.
    """
    names = sorted({name.lower() for name in split_list(value_of(vary, b"vary"))})
    if "*" in names or len(names) > _MOST_NAMES:
        return None
    return tuple((name, comparable(name, request)) for name in (n.encode("latin-1") for n in names))


def matches(selected: Selecting, request: Fields) -> bool:
    """Whether a request is answered by a response that was selected so."""
    return all(comparable(name, request) == value for name, value in selected)


def comparable(name: bytes, request: Fields) -> str | None:
    """A field's value without what does not matter: lines, blanks, and order where it means none.

    The order of languages and the like with the same weight means nothing (RFC 9110, section
    12.5.4); neither does case there.
    """
    lines = lines_of(request, name)
    if not lines:
        return None
    parts = split_list(",".join(lines))
    if name in _WEIGHED:
        parts = sorted("".join(part.split()).lower().removesuffix(";q=1") for part in parts)
    return ",".join(parts)
