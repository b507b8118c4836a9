"""How a servicer of a benchmark is served: as the credit service serves its own."""

from __future__ import annotations

import asyncio

from services.credits.settings import CreditSettings
from services.process.lifecycle import announce_ready
from services.rpc.server import Limits, Server


async def serve_until(servicer: object, settings: CreditSettings, stop: asyncio.Event) -> None:
    """Serves until ``stop`` is set. Raises OSError when the address cannot be had."""
    limits = Limits(settings.max_concurrent_calls, settings.max_message_bytes)
    async with Server(listen=settings.listen, servicers=[servicer], limits=limits) as server:
        announce_ready(settings.ready_file, server.address)
        await stop.wait()
