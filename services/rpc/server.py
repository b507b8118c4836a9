"""The server that every composition root starts: servicers, limits, and an end without losses.

server = Server(listen=settings.listen, servicers=[CreditServicer(ledger)], translate=...)
await server.start()
await stop.wait()
await server.drain()
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Sequence
from typing import Self

from services.process import inside
from services.process.logs import get_logger, name_calls_by
from services.rpc.call import Call
from services.rpc.envoy_face import EnvoyFace
from services.rpc.grpcio_face import GrpcioFace
from services.rpc.methods import methods_of, name_of
from services.rpc.pipeline import Limits, Pipeline, Translation
from services.rpc.tls import ServerTls

__all__ = ["Limits", "Server", "ServerTls", "Translation"]

_LAST_ANSWERS_S = 0.2
"""For answers that are made but not yet on the wire."""
_CLEAN_UP_S = 5.0
"""For the ``finally`` blocks of calls that were cancelled."""

log = get_logger(__name__)


class Server:
    """Serves gRPC on one address, with health and reflection.

    In a process that is Envoy (the envoy face), the address that Envoy was told is served by it;
    any other, and in any other process, by grpcio.

    Args:
        listen: ``host:port``; port 0 picks a free one (``address`` has it after ``start``).
        servicers: objects of classes derived from generated servicer classes.
        translate: the contract's error for exceptions that are not ServiceErrors (a store's, say);
            an exception that is in neither is answered INTERNAL with an incident id.
        tls: None for plain text.
        limits: what it takes on at most.
        drain_s: how long ``drain`` lets calls finish that are under way.
    """

    def __init__(
        self,
        *,
        listen: str,
        servicers: Sequence[object],
        translate: Translation | None = None,
        tls: ServerTls | None = None,
        limits: Limits | None = None,
        drain_s: float = 10.0,
    ) -> None:
        name_calls_by(Call.current_request_id)
        limits = limits or Limits()
        self._drain_s = drain_s
        self._pipeline = Pipeline(limits, translate or {})
        methods = [method for servicer in servicers for method in methods_of(servicer)]
        services = [name_of(servicer) for servicer in servicers]
        self._face: GrpcioFace | EnvoyFace
        host = inside.app.host_of(listen)
        if host is None:
            self._face = GrpcioFace(methods, services, self._pipeline, limits, tls, listen=listen)
        else:
            mutual = tls is not None and tls.client_ca is not None
            self._face = EnvoyFace(host, methods, services, self._pipeline, limits, identify=mutual)
        self.address = ""
        """Where it listens, ``host:port``; known after ``start``."""

    async def start(self) -> None:
        """Listens. Raises OSError when the address cannot be had."""
        self.address = await self._face.start()

    async def drain(
        self, last: Sequence[object] = (), until: Awaitable[None] | None = None
    ) -> None:
        """Ends the server: health says NOT_SERVING, new calls are refused, the others finish.

        Calls still under way after ``drain_s`` are cancelled and may clean up for a few seconds.

        Args:
            last: servicers that are still called: what goes on elsewhere ends with a call to them.
            until: when no more such calls are waited for; not longer than ``drain_s``.
        """
        end = time.monotonic() + self._drain_s
        paths = {method.path for servicer in last for method in methods_of(servicer)}
        self._pipeline.refuse_new_calls(but=paths)
        await self._face.announce_drain()
        if until is not None:
            await until
            self._pipeline.refuse_new_calls()
        left_s = max(_LAST_ANSWERS_S, end - time.monotonic())
        finished = await self._pipeline.wait_until_idle(left_s)
        if not finished:
            log.warning("drain_cut_short", drain_s=self._drain_s)
        await self._face.stop(_LAST_ANSWERS_S if finished else 0)
        if not await self._pipeline.wait_until_idle(_CLEAN_UP_S):
            log.error("clean_up_cut_short", clean_up_s=_CLEAN_UP_S)
        await self._face.flush()
        self._pipeline.flush()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.drain()
