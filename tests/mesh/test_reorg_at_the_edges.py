"""A reorganisation under the whole mesh: readers at the edges get the right bytes or a retry."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import aiohttp

from services.cli.files import until
from services.cli.mesh.local_mesh import NETWORK, LocalMesh
from services.cli.mesh.tenant import grant_once, make_tenant
from services.cli.transfer import Edge

FILE_BYTES = 300_000
EPOCH_BLOCKS = 4  # final after some eight blocks: time for a reorganisation before that


async def _rpc(session: aiohttp.ClientSession, mesh: LocalMesh, method: str, *params: Any) -> Any:  # noqa: ANN401 (any JSON)
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    url = f"http://{mesh.addresses['chain-node']}"
    async with session.post(url, json=call) as answer:
        return (await answer.json())["result"]


async def _look(session: aiohttp.ClientSession, url: str, key: str, data: bytes) -> str:
    """Reads the object: its bytes must be right. Gives ``final``, ``settling`` or ``absent``."""
    async with session.get(url, headers={"X-API-Key": key}) as answer:
        body = await answer.read()
        if answer.status == 404:
            assert "Retry-After" in answer.headers, "absent now is not absent for ever"
            return "absent"
        assert answer.status == 200, body
        assert body == data
        return "final" if "immutable" in answer.headers["Cache-Control"] else "settling"


async def test_no_edge_calls_a_file_final_that_a_reorganisation_can_still_drop(
    tmp_path: Path,
) -> None:
    data = os.urandom(FILE_BYTES)
    file = tmp_path / "file.bin"
    file.write_bytes(data)
    async with (
        LocalMesh(tmp_path, epoch_blocks=EPOCH_BLOCKS) as mesh,
        aiohttp.ClientSession() as session,
    ):
        tenant = await make_tenant(mesh, "reader")
        await grant_once(mesh, tenant, 100_000_000)
        edge = Edge(mesh.edge_urls[0], tenant.key)
        before = int(await _rpc(session, mesh, "eth_blockNumber"), 16)
        answer = await edge.upload(
            file, network=NETWORK, name="", request_id="u", advance=lambda _: None
        )
        cid = str(answer["cid"])
        urls = [f"{url}/objects/{NETWORK}/{cid}" for url in mesh.edge_urls]
        await until(edge, NETWORK, cid, "published")
        assert await _look(session, urls[0], tenant.key, data) == "settling"
        depth = int(await _rpc(session, mesh, "eth_blockNumber"), 16) - before
        await _rpc(session, mesh, "anvil_reorg", depth, [])
        seen, states, finalized = list[str](), set[object](), False
        while not finalized:
            # The state first: what was final when asked may be called final by the answer.
            status = await edge.document(f"/objects/{NETWORK}/{cid}/status")
            seen += [await _look(session, url, tenant.key, data) for url in urls]
            states.add(status["state"])
            finalized = status["state"] == "finalized"
            if not finalized:
                after = await edge.document(f"/objects/{NETWORK}/{cid}/status")
                if after["state"] != "finalized":
                    assert "final" not in seen[-2:], (status, seen[-2:])
        assert states == {"pending", "published", "finalized"}, "it was dropped and came again"
        assert {"settling", "absent"} & set(seen)
        while "settling" in [await _look(session, url, tenant.key, data) for url in urls]:
            pass  # an edge asks again about finality every other second
