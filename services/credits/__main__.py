"""The credit service's process: ``python -m services.credits``."""

from __future__ import annotations

import asyncio

from services.credits.errors import STORE_ERRORS
from services.credits.lease_servicer import LeaseServicer
from services.credits.ledger import Ledger
from services.credits.ledger_servicer import LedgerServicer
from services.credits.records import FAMILY
from services.credits.servicer import CreditServicer
from services.credits.settings import CreditSettings
from services.credits.sweeper import Sweeper, report
from services.credits.watch import Watches
from services.process.clock import Clock, now_us
from services.process.lifecycle import announce_ready, run
from services.rpc.server import Limits, Server
from services.rpc.tls import ServerTls
from services.store.open import open_store
from services.store.port import Store
from services.store.requests import RequestRecords, sweep_for_ever
from services.store.retention import Retention


def main() -> None:
    """Serves until SIGTERM."""
    run(CreditSettings, serve)


async def serve(settings: CreditSettings, stop: asyncio.Event, now_us: Clock = now_us) -> None:
    """Opens the store, serves until ``stop`` is set, drains, and closes the store."""
    store = await open_store(settings.store)
    try:
        retention = await Retention.open(store, FAMILY, wall_us=now_us)
        requests = RequestRecords(FAMILY, keep_s=settings.record_s, retention=retention)
        watches = Watches(limit=settings.watchers, poll_s=settings.watch_poll_s)
        ledger = Ledger(
            store,
            settings.rated_tariff(),
            requests,
            keep_s=settings.record_s,
            now_us=now_us,
            watches=watches,
        )
        sweeper = Sweeper(store, ledger, now_us, retention)
        forgetting = sweep_for_ever(
            store, requests, every_s=settings.sweep_s, now_us=now_us, failed=report
        )
        async with asyncio.TaskGroup() as background:
            sweeps = [
                background.create_task(sweeper.run(settings.sweep_s)),
                background.create_task(forgetting),
            ]
            async with new_server(settings, ledger, store) as server:
                announce_ready(settings.ready_file, server.address)
                await stop.wait()
                watches.close()  # they would never end, and the drain waits for calls to end
            for sweep in sweeps:
                sweep.cancel()
    finally:
        await store.close()


def new_server(settings: CreditSettings, ledger: Ledger, store: Store) -> Server:
    """The service on its address."""
    return Server(
        listen=settings.listen,
        servicers=[CreditServicer(ledger), LeaseServicer(ledger), LedgerServicer(ledger, store)],
        translate=STORE_ERRORS,
        tls=ServerTls.of(settings),
        limits=Limits(settings.max_concurrent_calls, settings.max_message_bytes),
        drain_s=settings.drain_s,
    )


if __name__ == "__main__":
    main()
