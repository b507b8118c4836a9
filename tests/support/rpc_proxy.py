"""An endpoint between a service and its chain that lies, hangs or fails on demand."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

Alter = Callable[[str, Any], Any]
"""What is answered instead of a method's result."""


def truth(_: str, result: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Leaves everything as it is."""
    return result


def altered_calldata(_: str, result: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Changes the last byte of the calldata of every transaction."""
    if not isinstance(result, dict):
        return result
    rows = [row for row in (result, *result.get("transactions", [])) if isinstance(row, dict)]
    for transaction in rows:
        data = transaction.get("input", "0x")
        if len(data) > 2:
            transaction["input"] = data[:-1] + ("0" if data[-1] != "0" else "1")
    return result


def another_chain(method: str, result: Any) -> Any:  # noqa: ANN401 (any JSON)
    """Says that it is on another chain."""
    return "0x5" if method == "eth_chainId" else result


@dataclass
class RpcProxy:
    """The endpoint; what it does can be changed at any time."""

    target: str
    url: str = ""
    alter: Alter = truth
    hanging: bool = False
    status: int = 200
    asked: Counter[str] = field(default_factory=Counter)
    """By method, how often it was asked."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        calls = json.loads(body)
        for call in calls if isinstance(calls, list) else [calls]:
            self.asked[call["method"]] += 1
        if self.hanging:
            await asyncio.sleep(3600)
        if self.status != 200:
            return web.Response(status=self.status)
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                self.target, data=body, headers={"content-type": "application/json"}
            ) as answer,
        ):
            replies = await answer.json()
        return web.json_response(self._changed(calls, replies))

    def _changed(self, calls: Any, replies: Any) -> Any:  # noqa: ANN401 (any JSON)
        if isinstance(replies, list):
            methods = {call["id"]: call["method"] for call in calls}
            return [self._one(methods[reply["id"]], reply) for reply in replies]
        return self._one(calls["method"], replies)

    def _one(self, method: str, reply: dict[str, Any]) -> dict[str, Any]:
        if "result" not in reply:
            return reply
        return {**reply, "result": self.alter(method, reply["result"])}


@asynccontextmanager
async def running_proxy(target: str, alter: Alter = truth) -> AsyncIterator[RpcProxy]:
    """Serves until the block ends."""
    proxy = RpcProxy(target, alter=alter)
    application = web.Application(client_max_size=16 << 20)
    application.router.add_post("/", proxy.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield proxy
    finally:
        await runner.cleanup()
