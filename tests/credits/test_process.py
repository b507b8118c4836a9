"""The real process: ``python -m services.credits``."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.credits.errors import ERRORS, InsufficientCreditError
from services.rpc.client import connect
from tests.support.credit_service import Account, metered
from tests.support.ledger_audit import audit_account
from tests.support.service_process import run_to_its_end, running

Settings = dict[str, str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    tariff = {"download": {"hit": "1/100", "miss": "1/10"}}
    return {"store": f"lmdb://{tmp_path}/store", "tariff": json.dumps(tariff), "sweep_s": "0.05"}


async def test_check_accepts_good_settings_and_starts_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    assert await run_to_its_end("credits", settings, "--check") == (0, "")
    assert not (tmp_path / "store").exists()


async def test_check_names_every_mistake(settings: Settings) -> None:
    del settings["store"]
    wrong = {"tariff": '{"download": {"miss": "cheap"}}', "request_record_hours": "1"}
    status, output = await run_to_its_end("credits", {**settings, **wrong}, "--check")
    assert status == 2
    assert "TOLLMESH_CREDITS_STORE: is required" in output
    assert "TOLLMESH_CREDITS_TARIFF / download / miss: must be a rate" in output
    assert "TOLLMESH_CREDITS_REQUEST_RECORD_HOURS" in output


async def test_a_store_that_there_is_not_is_a_mistake_in_the_settings(settings: Settings) -> None:
    wrong = {**settings, "store": "redis://host"}
    status, output = await run_to_its_end("credits", wrong, "--check")
    assert status == 2
    assert "TOLLMESH_CREDITS_STORE: 'redis://host' names no store" in output


async def test_a_store_that_cannot_be_opened_is_one_clear_line(
    settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    wrong = {**settings, "store": f"lmdb://{tmp_path}/file/store"}
    status, output = await run_to_its_end("credits", wrong)
    assert status == 1
    (line,) = output.splitlines()
    assert "Not a directory" in line


async def test_what_was_answered_is_there_after_a_restart(
    settings: Settings, tmp_path: Path
) -> None:
    async with running("credits", settings, tmp_path) as process:
        async with connect(process.address, errors=ERRORS) as channel:
            alice = Account(CreditServiceStub(channel))
            await alice.grant(100)
            request = alice.debit_request(metered=metered("download", 100, "MISS"))
            first = await alice.stub.Debit(request)
            assert first.amount == 10
        assert await process.stop(signal.SIGTERM) == 0
    async with (
        running("credits", settings, tmp_path) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        alice = Account(CreditServiceStub(channel))
        again = await alice.stub.Debit(request)
        assert (again.replayed, again.entry_id) == (True, first.entry_id)
        audit = await audit_account(alice.stub, "alice")
        assert audit.balance.spent == 10


async def test_a_hold_expires_by_itself(settings: Settings, tmp_path: Path) -> None:
    async with (
        running("credits", settings, tmp_path) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        alice = Account(CreditServiceStub(channel))
        await alice.grant(100)
        await alice.reserve(60, seconds=0.2)
        audit = await audit_account(alice.stub, "alice", until_settled=True)
        assert (audit.balance.available, audit.balance.held) == (100, 0)


async def test_each_call_has_one_log_line(settings: Settings, tmp_path: Path) -> None:
    async with running("credits", settings, tmp_path) as process:
        async with connect(process.address, errors=ERRORS) as channel:
            alice = Account(CreditServiceStub(channel))
            await alice.grant(5)
            with pytest.raises(InsufficientCreditError):
                await alice.debit(6)
        await process.stop()
        lines = [json.loads(line) for line in process.log().splitlines()]
    calls = [line for line in lines if line["event"] == "call"]
    assert [(line["code"], line["account_id"]) for line in calls] == [
        ("OK", "alice"),
        ("FAILED_PRECONDITION", "alice"),
    ]
    assert (calls[0]["amount"], calls[0]["currency"], calls[0]["replayed"]) == (5, "credit", False)
    assert calls[1]["reason"] == "INSUFFICIENT_CREDIT"
