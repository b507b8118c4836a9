"""The edge as a process: its settings, its logs, its directory."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import pytest

from tests.edge.conftest import RunningEdge, Tenant, World, object_path
from tests.support.service_process import run_to_its_end, running


@pytest.fixture
def settings(world: World) -> dict[str, str]:
    known = world.settings().model_dump(exclude_unset=True)
    return {name: str(value) for name, value in known.items()}


async def test_a_request_is_one_line_without_secrets(
    world: World, tenant: Tenant, settings: dict[str, str], tmp_path: Path
) -> None:
    cid = world.chain.add(b"hello")
    async with running("edge", settings | {"log_format": "json"}, tmp_path) as process:
        async with (
            aiohttp.ClientSession(f"http://{process.address}") as session,
            session.get(object_path(cid), headers=tenant.headers) as response,
        ):
            request_id = response.headers["X-Request-Id"]
            assert await response.read() == b"hello"
        assert await process.stop() == 0
        lines = [json.loads(line) for line in process.log().splitlines()]
    [line] = [line for line in lines if line["event"] == "request"]
    assert line["request_id"] == request_id
    assert line["path"] == object_path(cid)
    assert (line["method"], line["status"], line["sent_bytes"]) == ("GET", 200, 5)
    assert (line["account_id"], line["cache"]) == (tenant.account_id, "miss")
    assert line["duration_ms"] > 0
    assert line["trace_id"]
    assert tenant.key not in process.log()
    assert tenant.key.split("_")[3] not in process.log()


async def test_ids_reach_the_services_behind(
    world: World, edge: RunningEdge, tenant: Tenant
) -> None:
    cid = world.chain.add(b"hello")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await edge.get(object_path(cid), tenant, X_Request_Id="mine-7", Traceparent=trace)
    [call] = world.chain.calls
    assert call.request_id == "mine-7"
    assert call.trace_parent[:36] == trace[:36]


async def test_a_second_process_on_the_same_cache_is_refused_in_one_line(
    settings: dict[str, str], tmp_path: Path
) -> None:
    async with running("edge", settings, tmp_path):
        status, output = await run_to_its_end("edge", settings)
    assert status == 1
    assert "another edge uses" in output
    assert "Traceback" not in output


async def test_wrong_settings_are_told_all_at_once(settings: dict[str, str]) -> None:
    wrong = settings | {"pin_bytes": "9", "disk_bytes": "8", "region": "EU!", "auth_target": "x"}
    status, output = await run_to_its_end("edge", wrong, "--check")
    assert status == 2
    assert "TOLLMESH_EDGE_REGION" in output
    assert "TOLLMESH_EDGE_AUTH_TARGET" in output
    status, output = await run_to_its_end("edge", settings | {"disk_bytes": "8"}, "--check")
    assert status == 2
    assert "TOLLMESH_EDGE_PIN_BYTES" in output
    assert (await run_to_its_end("edge", settings, "--check")) == (0, "")
