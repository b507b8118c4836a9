"""The auth service's process: ``python -m services.auth``, settings from TOLLMESH_AUTH_..."""

from __future__ import annotations

import asyncio
import secrets

from services.auth.decision import Verifier
from services.auth.peppers import HASH_BYTES, Peppers
from services.auth.servicer import AccountServicer, AuthServicer, Terms
from services.auth.settings import AuthSettings
from services.process.clock import now_us
from services.process.lifecycle import announce_ready, run
from services.process.logs import get_logger
from services.rpc.server import Limits, Server
from services.rpc.tls import ServerTls
from services.store.open import open_store
from services.store.port import Operation, Store
from services.store.requests import RequestRecords, sweep_for_ever
from services.store.retention import Retention
from services.store.translation import STORE_ERRORS

log = get_logger(__name__)


def main() -> None:
    """Serves until SIGTERM."""
    run(AuthSettings, serve)


async def serve(settings: AuthSettings, stop: asyncio.Event) -> None:
    """Opens the store, serves until ``stop`` is set, drains, and closes the store."""
    store = await open_store(settings.store)
    try:
        peppers = await enrolled_peppers(settings, store)
        retention = await Retention.open(store, "auth", wall_us=now_us)
        keep_s = settings.request_record_hours * 3600
        records = RequestRecords("auth", keep_s=keep_s, retention=retention)
        server = new_server(settings, store, peppers, records)
        async with asyncio.TaskGroup() as background:
            sweeping = background.create_task(
                sweep_for_ever(
                    store, records, every_s=settings.sweep_s, now_us=now_us, failed=report
                )
            )
            async with server:
                announce_ready(settings.ready_file, server.address)
                await stop.wait()
            sweeping.cancel()
    finally:
        await store.close()


async def enrolled_peppers(settings: AuthSettings, store: Store) -> Peppers:
    """The peppers of the settings, held against what the store knows of them."""
    contents = {name: file.read_bytes() for name, file in settings.peppers.items()}
    peppers = Peppers(contents, settings.pepper_in_use)
    missing = (await store.commit(Operation(peppers.enrol))).result
    if missing:
        log.warning("peppers_missing", pepper_ids=missing, effect="keys hashed with them fail")
    return peppers


def new_server(
    settings: AuthSettings, store: Store, peppers: Peppers, records: RequestRecords
) -> Server:
    """The two services of the contract on one address."""
    verifier = Verifier.over(peppers, secrets.token_bytes(HASH_BYTES))
    terms = Terms(round(settings.decision_cache_s * 1_000_000), settings.concurrent_requests)
    return Server(
        listen=settings.listen,
        servicers=[
            AuthServicer(store, verifier, terms, now_us),
            AccountServicer(store, records, peppers, settings.environment, now_us),
        ],
        translate=STORE_ERRORS,
        tls=ServerTls.of(settings),
        limits=Limits(settings.max_concurrent_calls, settings.max_message_bytes),
        drain_s=settings.drain_s,
    )


def report(error: Exception) -> None:
    """Says that old request records could not be removed this time."""
    log.warning("sweep_failed", error=repr(error))


if __name__ == "__main__":
    main()
