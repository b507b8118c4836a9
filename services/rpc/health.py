"""Health of a server and its services, without a server library.

Contract: https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import grpc
from grpc_health.v1 import (  # type: ignore[import-untyped]  # has none
    health,
    health_pb2,
    health_pb2_grpc,
)

from services.rpc.errors import StatusError
from services.rpc.methods import Method, methods_of

HEALTH_SERVICE: str = health.SERVICE_NAME

_Message = Any
_Status = health_pb2.HealthCheckResponse


class Health:
    """Says whether this process serves: all services do, or none."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})
        self._serving = False
        self._changed = asyncio.Event()

    def announce(self, *, serving: bool) -> None:
        """Tells everyone who asks, and everyone who watches."""
        self._serving = serving
        self._changed.set()
        self._changed = asyncio.Event()

    def methods(self) -> Iterator[Method]:
        """``Check`` and ``Watch``."""
        return methods_of(_Servicer(self))

    def status_of(self, service: str) -> int | None:
        """A service's status; None when there is no such service."""
        if service not in self._services:
            return None
        return int(_Status.SERVING if self._serving else _Status.NOT_SERVING)

    async def change(self) -> None:
        """Waits until something was announced."""
        await self._changed.wait()


class _Servicer(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # has no types
    def __init__(self, health: Health) -> None:
        self._health = health

    async def Check(self, request: _Message, _: object) -> _Message:  # noqa: N802 (the contract's name)
        status = self._health.status_of(request.service)
        if status is None:
            raise StatusError(grpc.StatusCode.NOT_FOUND, f"no service {request.service}")
        return _Status(status=status)

    async def Watch(self, request: _Message, _: object) -> AsyncIterator[_Message]:  # noqa: N802 (the contract's name)
        last = None
        while True:
            status = self._health.status_of(request.service)
            if status is None:
                status = _Status.SERVICE_UNKNOWN
            if status != last:
                last = status
                yield _Status(status=status)
            else:
                await self._health.change()
