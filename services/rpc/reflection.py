"""Reflection: tools such as grpcurl learn the contract from the server.

Contract: https://github.com/grpc/grpc/blob/master/doc/server-reflection.md. Version 1 differs from
1alpha by its name alone; tools ask for one and fall back to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # has none

from services.rpc.health import HEALTH_SERVICE
from services.rpc.methods import Method, methods_of

_ALPHA: str = reflection.SERVICE_NAME
_STABLE = _ALPHA.replace("v1alpha", "v1")


def reflection_methods(services: Iterable[str]) -> Iterator[Method]:
    """The one method, under both names; it tells of these services, health and itself."""
    names = (*services, HEALTH_SERVICE, _ALPHA, _STABLE)
    for method in methods_of(reflection.aio.ReflectionServicer(names)):
        yield method
        yield replace(method, path=method.path.replace(_ALPHA, _STABLE))
