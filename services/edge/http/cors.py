"""Which web pages may read answers (CORS, by the Fetch standard), and OPTIONS in general.

Nothing here is ever opened by who somebody is to a browser (no cookie, no log-in): a page has to
show a key that it has. So any page may be allowed to ask, and credentials of browsers never are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from services.edge.http.problems import Headers

MAX_AGE_S = 7200
"""How long a browser remembers what it may ask; the most that any of them does."""

_ANY = "*"
# The asterisk stands for every field but Authorization, which is named for that.
_ASK = (b"access-control-allow-headers", b"*, Authorization")
_SHOW = (b"access-control-expose-headers", b"*")
_VARY = (b"vary", b"Origin")


class Cors:
    """Tells browsers which pages may read.

    Args:
        origins: of these pages (``https://app.example``); ``*`` is any.
    """

    def __init__(self, origins: Iterable[str] = ()) -> None:
        self._origins = frozenset(origins)
        self._of_any: Headers = [(b"access-control-allow-origin", b"*"), _SHOW]

    @property
    def fixed(self) -> Headers | None:
        """What ``fields`` gives whoever asks, if it is always the same."""
        if _ANY in self._origins:
            return self._of_any
        return None if self._origins else []

    def fields(self, request: Mapping[str, str]) -> Headers:
        """What an answer to a request with these headers carries, an error too."""
        fixed = self.fixed
        if fixed is not None:
            return fixed
        origin = request.get("origin")
        if origin not in self._origins:
            return [_VARY]
        return [(b"access-control-allow-origin", origin.encode("latin-1")), _SHOW, _VARY]

    def preflight(self, methods: Iterable[str]) -> Headers:
        """What a page hears that asks, before its request, whether it may make it."""
        return [
            (b"access-control-allow-methods", ", ".join(methods).encode("ascii")),
            _ASK,
            (b"access-control-max-age", b"%d" % MAX_AGE_S),
        ]


def is_preflight(method: str, request: Mapping[str, str]) -> bool:
    """Whether a request is a browser's question before another one."""
    return (
        method == "OPTIONS" and "origin" in request and "access-control-request-method" in request
    )
