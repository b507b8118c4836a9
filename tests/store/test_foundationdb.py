"""What is particular to the cluster engine; on the cluster that ``FDB_CLUSTER_FILE`` names."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.process.clock import now_us
from services.store.engines import foundationdb
from services.store.engines.foundationdb import FoundationDatabase, destroy
from services.store.errors import StoreUnavailableError
from services.store.open import open_store
from services.store.optimistic import MARKERS
from services.store.port import Operation, Store
from tests.support import hot_debits
from tests.support.credit_service import Account, CreditService
from tests.support.deadline import DEADLINE_S
from tests.support.ledger_audit import audit_account

pytestmark = pytest.mark.fdb


@pytest.fixture
def cluster_file() -> Path:
    file = os.environ.get("FDB_CLUSTER_FILE")
    if not file:
        pytest.fail("FDB_CLUSTER_FILE names no cluster", pytrace=False)
    return Path(file)


@pytest.fixture
async def directory(cluster_file: Path) -> AsyncIterator[str]:
    name = f"tollmesh-test-{secrets.token_hex(8)}"
    yield name
    await destroy(cluster_file, name)


async def value_in(store: Store) -> bytes | None:
    return (await store.read(lambda tx: tx.get(b"k"))).result


async def test_directories_are_apart_and_the_same_directory_is_the_same_data(
    cluster_file: Path, directory: str
) -> None:
    urls = [f"fdb://{cluster_file}?directory={directory}/{name}" for name in ("a", "b", "a")]
    stores = [await open_store(url) for url in urls]
    await stores[0].commit(Operation(lambda tx: tx.set(b"k", b"in a")))
    assert [await value_in(store) for store in stores] == [b"in a", None, b"in a"]
    for store in stores:
        await store.close()


async def test_a_destroyed_directory_is_gone_and_destroying_it_again_is_fine(
    cluster_file: Path, directory: str
) -> None:
    url = f"fdb://{cluster_file}?directory={directory}"
    store = await open_store(url)
    await store.commit(Operation(lambda tx: tx.set(b"k", b"v")))
    await store.close()
    await destroy(cluster_file, directory)
    await destroy(cluster_file, directory)
    store = await open_store(url)
    assert await value_in(store) is None
    await store.close()


async def test_markers_of_clients_long_gone_are_swept_when_the_store_is_opened(
    cluster_file: Path, directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"fdb://{cluster_file}?directory={directory}"

    async def markers() -> int:
        database = await FoundationDatabase.open(cluster_file, directory)
        attempt = database.begin()
        count = await attempt.run((), lambda snapshot: len(snapshot.range(MARKERS, b"\xff\xff")))
        await database.close()
        return count

    for _ in range(3):
        store = await open_store(url)
        await store.commit(Operation(lambda tx: tx.set(b"k", b"v"), "g"))
        await store.close()
    assert await markers() == 3
    monkeypatch.setattr(foundationdb, "_STALE_MARKER_VERSIONS", -1)
    assert await markers() == 0


async def test_a_cluster_that_does_not_answer_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foundationdb, "_TIMEOUT_MS", 300)
    nowhere = tmp_path / "fdb.cluster"
    nowhere.write_text("test:nowhere@127.0.0.1:1\n")
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(StoreUnavailableError):
            await open_store(f"fdb://{nowhere}")
        with pytest.raises(StoreUnavailableError):
            await open_store(f"fdb://{tmp_path}/missing.cluster")


@pytest.mark.parametrize("callers", [(64, 64), (4, 128)], ids=["alike", "few and many"])
async def test_two_processes_on_one_account_have_their_turns_whatever_their_load(
    cluster_file: Path, directory: str, callers: tuple[int, int]
) -> None:
    url = f"fdb://{cluster_file}?directory={directory}"
    store = await open_store(url)
    account = Account(CreditService(store, now_us).direct, hot_debits.ACCOUNT)
    await account.grant(10**12)
    processes = [await hot_debits.start(url, f"p{n}", each) for n, each in enumerate(callers)]
    try:
        for process in processes:
            process.tell()
        saying = {asyncio.create_task(process.heard()) for process in processes}
        said, others = await asyncio.wait(saying, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in said} == {"enough"}
        for task in others:
            task.cancel()
        await asyncio.wait(saying)
        one, other = await asyncio.gather(*(process.done() for process in processes))
    finally:
        for process in processes:
            process.kill()
    assert min(one.turns, other.turns) >= max(one.turns, other.turns) / 4, (one, other)
    audit = await audit_account(account.stub, hot_debits.ACCOUNT)
    assert audit.balance.spent == one.debits + other.debits
    await store.close()
