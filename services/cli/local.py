"""``tollmesh up``, ``down`` and ``demo``: a whole mesh on this machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from services.cli import output
from services.cli.connection import home
from services.cli.failure import FAILED, CommandError
from services.cli.mesh.demo import run_demo
from services.cli.mesh.local_mesh import NETWORK, LocalMesh, until_ended
from services.cli.mesh.tenant import Tenant, grant_once, make_tenant

FIRST_GRANT = 10_000_000
START_S = 90.0
STOP_S = 60.0


def up(
    detach: Annotated[
        bool, typer.Option("--detach", help="Return when the mesh runs; stop it with 'down'.")
    ] = False,
) -> None:
    """Start a mesh on this machine: a local chain, the services and two edges."""
    if (running := _running()) is not None:
        _explain(running)
    elif detach:
        _explain(_detached())
    else:
        asyncio.run(_up())


def down() -> None:
    """Stop the mesh that 'up' started; its data stays."""
    running = _running()
    if running is None:
        output.console.print("No mesh runs here.")
        return
    pid = int(str(running["pid"]))
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while _running() is not None:
        if time.monotonic() > deadline:
            raise CommandError(f"the mesh (process {pid}) does not stop; see {home()}/logs", FAILED)
        time.sleep(0.05)
    output.console.print("The mesh has stopped; its data stays in", str(home()))


def demo() -> None:
    """Publish a file to a local chain, download it through two edges, and check the bill."""
    asyncio.run(run_demo())


async def _up() -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    at = home()
    at.mkdir(parents=True, exist_ok=True, mode=0o700)
    description = at / "mesh.json"
    async with LocalMesh(at, fixed_ports=True) as mesh:
        tenant = await _tenant(mesh)
        described = _described(mesh, tenant)
        partial = description.with_suffix(".part")
        partial.touch(mode=0o600)
        partial.write_text(json.dumps(described, indent=2))
        partial.replace(description)
        try:
            _explain(described)
            await until_ended(mesh, stopping)
        finally:
            description.unlink(missing_ok=True)


def _detached() -> dict[str, object]:
    at = home()
    (at / "logs").mkdir(parents=True, exist_ok=True)
    with (at / "logs" / "mesh.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.cli", "up"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_S
    while (running := _running()) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            text = (at / "logs" / "mesh.log").read_text(errors="replace")
            raise CommandError(f"the mesh did not start:\n{text.strip()}", FAILED)
        time.sleep(0.05)
    return running


def _running() -> dict[str, object] | None:
    path = home() / "mesh.json"
    try:
        described: dict[str, object] = json.loads(path.read_text())
        os.kill(int(str(described["pid"])), 0)
    except (FileNotFoundError, ProcessLookupError):
        return None
    return described


async def _tenant(mesh: LocalMesh) -> Tenant:
    path = mesh.home / "account.json"
    if path.exists():
        kept = json.loads(path.read_text())
        return Tenant(kept["account"], kept["key"])
    tenant = await make_tenant(mesh, "local")
    await grant_once(mesh, tenant, FIRST_GRANT)
    path.touch(mode=0o600)
    path.write_text(json.dumps({"account": tenant.account_id, "key": tenant.key}))
    return tenant


def _described(mesh: LocalMesh, tenant: Tenant) -> dict[str, object]:
    return {
        "pid": os.getpid(),
        "auth_target": mesh.addresses["auth"],
        "credits_target": mesh.addresses["credits"],
        "chain_target": mesh.addresses["chain"],
        "edge_url": mesh.edge_urls[0],
        "edge_urls": mesh.edge_urls,
        "chain_url": f"http://{mesh.addresses['chain-node']}",
        "network": NETWORK,
        "account": tenant.account_id,
        "key": tenant.key,
    }


def _explain(described: dict[str, object]) -> None:
    program = Path(sys.argv[0])
    command = "tollmesh" if program.suffix else os.path.relpath(program)
    edges = described["edge_urls"]
    first, second = edges if isinstance(edges, list) else ("", "")
    output.console.print(
        f"""The mesh runs.

  edges     {first}  {second}
  services  auth {described["auth_target"]}  credits {described["credits_target"]}  \
chain {described["chain_target"]}
  chain     {described["chain_url"]} (network {described["network"]})
  account   {described["account"]}
  key       {described["key"]}

Try:
  {command} publish README.md --wait finalized
  {command} get CID -o copy.md
  curl -H "Authorization: Bearer {described["key"]}" {second}/downloads/CID
  {command} balance
  {command} ledger
""",
        highlight=False,
        soft_wrap=True,
    )
    if described["pid"] == os.getpid():
        output.console.print("Ctrl-C stops it.")
    else:
        output.console.print(f"{command} down stops it.")
