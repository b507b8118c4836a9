"""The first byte of an object that the edge does not have, beside the same of the chain service.

The chain service is some way off, so that a second round trip would show.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from tollmesh.chain.v1 import chain_pb2
from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceStub

from bench.edge.report import Row
from bench.edge.stage import Stage, request
from bench.edge.world import World, start_edge, start_world
from services.chain.errors import ERRORS
from services.rpc.client import connect
from tests.support.fake_chain import NETWORK

if TYPE_CHECKING:  # the type has no class at run time
    from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceAsyncStub

_SIZE = 256 * 1024
_OBJECTS = 20
"""A round; each is asked for once."""
_FIRST = 10
"""Asked for before, so that the edge has a lease."""
_AWAY_S = 0.03


async def rows(stage: Stage) -> list[Row]:
    """The rows of this subject."""
    sizes = [_SIZE + number for number in range(stage.rounds * _OBJECTS + 1 + _FIRST)]
    world = await start_world(stage, sizes, away_s=_AWAY_S)
    edge = await start_edge(stage, world)
    beyond = []
    async with connect(world.chain, errors=ERRORS) as channel:
        chain: ChainServiceAsyncStub = ChainServiceStub(channel)
        await _first_of_chain(chain, world, sizes.pop())
        for _ in range(_FIRST):
            await _first_of_edge(edge.address, world, sizes.pop())
        for _ in range(stage.rounds):
            ours, theirs = [], []
            for _ in range(_OBJECTS):
                size = sizes.pop()
                theirs.append(await _first_of_chain(chain, world, size))
                ours.append(await _first_of_edge(edge.address, world, size))
            beyond.append(1000 * (statistics.median(ours) - statistics.median(theirs)))
    return [Row("cold object, first byte", "ms beyond the chain's", beyond, at_most=5.0)]


async def _first_of_chain(chain: ChainServiceAsyncStub, world: World, size: int) -> float:
    asked = chain_pb2.ReadObjectRequest(network=NETWORK, cid=world.objects[str(size)])
    started = time.perf_counter()
    call = chain.ReadObject(asked)
    async for answer in call:
        if answer.data:
            break
    took = time.perf_counter() - started
    call.cancel()
    return took


async def _first_of_edge(address: str, world: World, size: int) -> float:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    started = time.perf_counter()
    writer.write(request(world.path(size), world.headers).encode("latin-1"))
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(head.decode("latin-1"))
    await reader.readexactly(1)
    took = time.perf_counter() - started
    await reader.readexactly(size - 1)
    writer.close()
    return took
