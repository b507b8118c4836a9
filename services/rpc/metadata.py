"""The headers of a request as a call's metadata, decoded only when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# What belongs to the protocol, or would be bytes.
_NOT_METADATA = frozenset(
    {
        b"host",
        b"content-type",
        b"te",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"x-forwarded-client-cert",
    }
)


class Received(Mapping[str, str]):
    """Lower-case names and their values; binary ones (``-bin``) are left out."""

    __slots__ = ("_decoded", "headers")

    def __init__(self, headers: dict[bytes, bytes]) -> None:
        self.headers = headers
        """As they came, the protocol's own among them."""
        self._decoded: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._all()[name]

    def get(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 (as of any mapping)
        """One value, without decoding the others."""
        key = name.encode()
        value = self.headers.get(key)
        if value is None or key in _NOT_METADATA or name.endswith("-bin"):
            return default
        return value.decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, str]:
        if self._decoded is None:
            self._decoded = {
                name.decode(): value.decode("latin-1")
                for name, value in self.headers.items()
                if name not in _NOT_METADATA and not name.endswith(b"-bin")
            }
        return self._decoded
