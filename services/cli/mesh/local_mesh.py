"""A mesh on this machine: a local chain, the three services and two edges, on embedded stores."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from services.cli.failure import FAILED, CommandError
from services.cli.mesh.processes import Child, free_port, start, stop

NETWORK = "evm-local"
INBOX_ADDRESS = "0x746f6c6c6d657368000000000000000000000001"  # "tollmesh", in ASCII
# The first account of the development chain: its key is public, its money is not money.
DEVELOPMENT_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"
REGIONS = ("eu", "us")
TARIFF = {
    "download": {"currency": "credit", "hit": "1/1024", "miss": "2/1024"},
    "upload": {"currency": "credit", "miss": "4/1024"},
    "pin": {"currency": "credit", "miss": "1/737280"},
}
PORTS = {"chain-node": 7405, "auth": 7410, "credits": 7420, "chain": 7430}
EDGE_PORTS = ((7440, 7441), (7450, 7451))  # HTTP, gRPC


@dataclass
class LocalMesh:
    """Use as an async context: inside, every process listens; at the end, all have drained."""

    home: Path
    fixed_ports: bool = False
    """Take the ports that the documentation names, where they are free."""
    overrides: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Settings beyond the usual ones, by service: ``{"auth": {"concurrent_requests": "0"}}``."""
    epoch_blocks: int = 1
    """The local chain calls a block final when two epochs of so many blocks lie upon it."""
    more_networks: Mapping[str, object] = field(default_factory=dict)
    """Networks of the chain service beside the local one."""
    addresses: dict[str, str] = field(default_factory=dict)
    """host:port of chain-node, auth, credits, chain, and of edge-eu, edge-eu-grpc and so on."""
    _children: list[Child] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        self._prepare()
        try:
            await self._start()
        except BaseException:
            await stop(self._children)
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await stop(self._children)

    @property
    def edge_urls(self) -> list[str]:
        """The edges' HTTP addresses."""
        return [f"http://{self.addresses[f'edge-{region}']}" for region in REGIONS]

    def ended(self) -> str | None:
        """The name of a process that has ended by itself, if one has."""
        return next((c.name for c in self._children if c.process.poll() is not None), None)

    def _prepare(self) -> None:
        for name in ("auth", "credits", "chain", "logs", *(f"edge-{r}" for r in REGIONS)):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        _secret(self.home / "pepper", secrets.token_hex(32))
        _secret(self.home / "publisher.key", DEVELOPMENT_KEY)
        for name, preferred in PORTS.items():
            self._address(name, preferred)
        for region, (http, grpc) in zip(REGIONS, EDGE_PORTS, strict=True):
            self._address(f"edge-{region}", http)
            self._address(f"edge-{region}-grpc", grpc)

    def _address(self, name: str, preferred: int) -> None:
        port = free_port(preferred if self.fixed_ports else 0)
        while (address := f"127.0.0.1:{port}") in self.addresses.values():
            port = free_port()
        self.addresses[name] = address

    async def _start(self) -> None:
        anvil = _anvil(self.addresses["chain-node"], self.home, self.epoch_blocks)
        node = self._run("chain-node", anvil, {})
        await node.listening(self.addresses["chain-node"])
        started = [self._service(name, name, env) for name, env in self._service_settings().items()]
        started += [
            self._service(f"edge-{region}", "edge", self._edge_settings(region))
            for region in REGIONS
        ]
        for child in started:
            await child.listening(self.addresses[child.name])

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> Child:
        child = start(name, command, self.home / "logs", environment)
        self._children.append(child)
        return child

    def _service(self, name: str, module: str, settings: Mapping[str, str]) -> Child:
        prefix = f"TOLLMESH_{module.upper()}_"
        settings = {**settings, **self.overrides.get(module, {})}
        environment = {f"{prefix}{key.upper()}": value for key, value in settings.items()}
        environment[f"{prefix}LISTEN"] = self.addresses[name]
        return self._run(name, [sys.executable, "-m", f"services.{module}"], environment)

    def _service_settings(self) -> dict[str, dict[str, str]]:
        network = {
            "kind": "evm",
            "endpoints": [f"http://{self.addresses['chain-node']}"],
            "inbox_address": INBOX_ADDRESS,
            "private_key_file": str(self.home / "publisher.key"),
        }
        return {
            "auth": {
                "store": f"lmdb://{self.home}/auth",
                "peppers": json.dumps({"1": str(self.home / "pepper")}),
                "current_pepper": "1",
            },
            "credits": {"store": f"lmdb://{self.home}/credits", "tariff": json.dumps(TARIFF)},
            "chain": {
                "store": f"lmdb://{self.home}/chain/index",
                "spool_dir": f"{self.home}/chain/spool",
                "networks": json.dumps({NETWORK: network, **self.more_networks}),
            },
        }

    def _edge_settings(self, region: str) -> dict[str, str]:
        return {
            "grpc_listen": self.addresses[f"edge-{region}-grpc"],
            "auth_target": self.addresses["auth"],
            "credits_target": self.addresses["credits"],
            "chain_target": self.addresses["chain"],
            "region": region,
            "default_network": NETWORK,
            "cache_dir": f"{self.home}/edge-{region}",
        }


def _secret(path: Path, value: str) -> None:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(value)


def _anvil(address: str, home: Path, epoch_blocks: int) -> list[str]:
    # The program itself, not the script before it: a script that is ended leaves it behind.
    packages = Path(__file__).parents[3] / "deploy/node/node_modules/@foundry-rs"
    program = next(map(str, packages.glob("anvil-*/bin/anvil")), None) or shutil.which("anvil")
    if not program:
        message = "the local chain (anvil) is not installed: run 'make demo' or 'make up' once"
        raise CommandError(message, FAILED)
    port = address.rpartition(":")[2]
    options = "--host 127.0.0.1 --block-time 1 --gas-limit 300000000 --silent --slots-in-an-epoch"
    state = ["--state", str(home / "chain-node.json"), "--state-interval", "5"]
    return [program, "--port", port, *options.split(), str(epoch_blocks), *state]


async def until_ended(mesh: LocalMesh, stopping: asyncio.Event) -> None:
    """Waits until ``stopping`` is set. Raises CommandError when a process ends before that."""
    while not stopping.is_set():
        if name := mesh.ended():
            raise CommandError(f"{name} ended by itself; see {mesh.home}/logs/{name}.log", FAILED)
        try:
            async with asyncio.timeout(0.5):
                await stopping.wait()
        except TimeoutError:
            continue
