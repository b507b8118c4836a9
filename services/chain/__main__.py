"""The chain service's process: ``python -m services.chain``, settings from TOLLMESH_CHAIN_..."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from services.chain.archive import Archive
from services.chain.intake import Limits as IntakeLimits
from services.chain.networks.evm.network import EvmNetwork
from services.chain.servicer import ChainServicer
from services.chain.settings import ChainSettings
from services.process.clock import now_us
from services.process.lifecycle import announce_ready, run
from services.process.logs import get_logger
from services.rpc.server import Limits, Server
from services.rpc.tls import ServerTls
from services.store.open import open_store
from services.store.port import Store
from services.store.requests import RequestRecords, sweep_for_ever
from services.store.retention import Retention
from services.store.translation import STORE_ERRORS

log = get_logger(__name__)


def main() -> None:
    """Serves until SIGTERM."""
    run(ChainSettings, serve)


async def serve(settings: ChainSettings, stop: asyncio.Event) -> None:
    """Opens the store and the networks, serves until ``stop`` is set, drains, closes them."""
    store = await open_store(settings.store)
    try:
        retention = await Retention.open(store, "chain", wall_us=now_us)
        keep_s = settings.request_record_hours * 3600
        records = RequestRecords("chain", keep_s=keep_s, retention=retention)
        async with (
            open_archives(settings, store, records) as archives,
            asyncio.TaskGroup() as background,
        ):
            sweep = sweep_for_ever(
                store,
                records,
                every_s=settings.sweep_s,
                now_us=now_us,
                failed=lambda error: log.warning("sweep_failed", error=repr(error)),
            )
            runs = (sweep, *(archive.run() for archive in archives.values()))
            tasks = [background.create_task(run) for run in runs]
            async with new_server(settings, ChainServicer(archives)) as server:
                announce_ready(settings.ready_file, server.address)
                await stop.wait()
            for task in tasks:
                task.cancel()
    finally:
        await store.close()


@asynccontextmanager
async def open_archives(
    settings: ChainSettings, store: Store, records: RequestRecords
) -> AsyncIterator[Mapping[str, Archive]]:
    """An archive for each network of the settings."""
    archives: dict[str, Archive] = {}
    async with AsyncExitStack() as closing:
        for name, network in settings.networks.items():
            archives[name] = Archive(
                EvmNetwork(name, network, store),
                store,
                spool_dir=settings.spool_dir,
                records=records,
                limits=IntakeLimits(settings.max_object_bytes, settings.max_spool_bytes),
                poll_s=settings.poll_s,
                now_us=now_us,
            )
            closing.push_async_callback(archives[name].close)
        yield archives


def new_server(settings: ChainSettings, servicer: ChainServicer) -> Server:
    """The service of the contract on one address."""
    return Server(
        listen=settings.listen,
        servicers=[servicer],
        translate=STORE_ERRORS,
        tls=ServerTls.of(settings),
        limits=Limits(settings.max_concurrent_calls, settings.max_message_bytes),
        drain_s=settings.drain_s,
    )


if __name__ == "__main__":
    main()
