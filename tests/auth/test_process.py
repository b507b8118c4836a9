"""The real process: ``python -m services.auth``."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb
from tollmesh.auth.v1 import auth_pb2_grpc as pb_grpc

from services.auth.credential import Credential
from services.auth.errors import ERRORS
from services.rpc.client import connect
from services.rpc.errors import DependencyUnavailableError, ShuttingDownError
from tests.support.deadline import DEADLINE_S
from tests.support.service_process import ServiceProcess, run_to_its_end, running

Settings = dict[str, str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    pepper = tmp_path / "pepper"
    pepper.write_text("a pepper of at least thirty-two bytes")
    return {
        "store": f"lmdb://{tmp_path}/store",
        "peppers": json.dumps({"1": str(pepper)}),
        "log_level": "debug",
    }


def contents(directory: Path) -> bytes:
    """All that the process wrote: its logs and its store."""
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


async def test_check_accepts_good_settings_and_starts_nothing(
    settings: Settings, tmp_path: Path
) -> None:
    assert await run_to_its_end("auth", settings, "--check") == (0, "")
    assert not (tmp_path / "store").exists()


async def test_check_names_every_mistake(settings: Settings) -> None:
    del settings["peppers"]
    status, output = await run_to_its_end("auth", {**settings, "sweep_s": "never"}, "--check")
    assert status == 2
    assert "TOLLMESH_AUTH_PEPPERS: is required" in output
    assert "/dev/urandom" in output
    assert "TOLLMESH_AUTH_SWEEP_S" in output


async def test_another_secret_under_a_known_pepper_id_stops_the_start(
    settings: Settings, tmp_path: Path
) -> None:
    async with running("auth", settings, tmp_path) as process:
        assert await process.stop() == 0
    (tmp_path / "pepper").write_text("quite another pepper, just as long as that")
    status, output = await run_to_its_end("auth", settings)
    assert status == 1
    [line] = output.splitlines()
    assert "pepper '1' is not the secret" in json.loads(line)["error"]


async def test_a_key_outlives_the_process_and_its_secret_is_in_no_log_and_no_file(
    settings: Settings, tmp_path: Path
) -> None:
    async with (
        running("auth", settings, tmp_path) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        accounts = pb_grpc.AccountServiceStub(channel)
        made = await accounts.CreateAccount(pb.CreateAccountRequest(request_id="1"))
        key = await accounts.CreateApiKey(
            pb.CreateApiKeyRequest(
                request_id="2", account_id=made.account.account_id, scopes=[pb.SCOPE_ADMIN]
            )
        )
        assert await process.stop() == 0
    async with (
        running("auth", settings, tmp_path) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        answer = await pb_grpc.AuthServiceStub(channel).Authorize(
            pb.AuthorizeRequest(credential=key.credential, action=pb.ACTION_UPLOAD)
        )
        assert answer.key_id == key.api_key.key_id
        assert await process.stop(signal.SIGINT) == 0
    kept = contents(tmp_path)
    assert key.api_key.key_id.encode() in kept
    assert Credential.parse(key.credential).secret.encode() not in kept


async def test_every_call_has_one_log_line_that_names_the_key(
    settings: Settings, tmp_path: Path
) -> None:
    credential = Credential("local", "k" * 16, "s" * 32).reveal()
    async with (
        running("auth", settings, tmp_path) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        request = pb.AuthorizeRequest(
            credential=credential,
            action=pb.ACTION_PIN,
            resource="evm-local/bafkr6i",
            client=pb.ClientContext(region="eu"),
        )
        with pytest.raises(Exception, match="no such API key"):
            await pb_grpc.AuthServiceStub(channel).Authorize(request)
        await process.stop()
    lines = [json.loads(line) for line in process.log().splitlines()]
    [line] = [line for line in lines if line["event"] == "call"]
    expected = {
        "method": "/tollmesh.auth.v1.AuthService/Authorize",
        "reason": "CREDENTIAL_UNKNOWN",
        "key_id": "k" * 16,
        "action": "pin",
        "resource": "evm-local/bafkr6i",
        "region": "eu",
    }
    assert {name: line[name] for name in expected} == expected


async def test_sigterm_under_load_loses_nothing_that_was_answered(
    settings: Settings, tmp_path: Path
) -> None:
    async with running("auth", settings, tmp_path) as process:
        made = await _accounts_until_refused(process)
        assert await asyncio.wait_for(process.process.wait(), DEADLINE_S) == 0
    async with (
        running("auth", settings, tmp_path) as process,
        connect(process.address, errors=ERRORS) as channel,
    ):
        accounts = pb_grpc.AccountServiceStub(channel)
        for account_id in made:
            await accounts.GetAccount(pb.GetAccountRequest(account_id=account_id))
        assert await process.stop() == 0


async def _accounts_until_refused(process: ServiceProcess) -> list[str]:
    """Makes accounts from many callers, ends the process meanwhile; the accounts it answered."""
    made: list[str] = []

    async def caller(number: int) -> None:
        for turn in range(10_000):
            request = pb.CreateAccountRequest(request_id=f"{number}:{turn}")
            try:
                answer = await accounts.CreateAccount(request)
            except (ShuttingDownError, DependencyUnavailableError):
                return
            made.append(answer.account.account_id)
            if len(made) == 100:
                process.process.send_signal(signal.SIGTERM)

    async with connect(process.address, errors=ERRORS) as channel:
        accounts = pb_grpc.AccountServiceStub(channel)
        async with asyncio.TaskGroup() as callers:
            for number in range(8):
                callers.create_task(caller(number))
    assert len(made) >= 100
    return made
