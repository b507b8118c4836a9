"""Servers of the operator's own that stand before an edge, or ask it: trusted by a secret."""

from __future__ import annotations

import hmac
from typing import Self

from services.edge.http.exchange import Exchange
from services.process.settings import SecretFile


class Fronts:
    """Tells them from clients.

    Args:
        secret: what they send in Tollmesh-Front; None trusts nobody.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret

    @classmethod
    def of(cls, file: SecretFile | None) -> Self:
        """Those who know what is in a file. Raises OSError."""
        return cls(None if file is None else file.read_bytes())

    def sent(self, exchange: Exchange) -> bool:
        """Whether a request comes from a front."""
        shown = exchange.headers.get("tollmesh-front")
        return shown is not None and self.know(shown.encode("latin-1"))

    def know(self, secret: bytes) -> bool:
        """Whether this is the secret."""
        return self._secret is not None and hmac.compare_digest(secret, self._secret)
