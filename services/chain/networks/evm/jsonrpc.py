"""JSON-RPC 2.0 over HTTP: one request to one endpoint. Which endpoint, and what then, is elsewhere.

Format: https://www.jsonrpc.org/specification (batches included). URLs hold API keys at many
providers, so they stand in no message and no log line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

MAX_ANSWER_BYTES = 256 << 20
"""An answer beyond it is refused while it arrives. A block of 300 M gas in calldata has 15 MB."""
_CONNECT_S = 3.0
_READ_BYTES = 1 << 18


class EndpointError(Exception):
    """An endpoint did not answer, or its answer is not JSON-RPC. The message names no URL."""


class RpcError(Exception):
    """What an endpoint answered instead of a result."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class JsonRpc:
    """A pool of connections. Close it."""

    def __init__(self, timeout_s: float) -> None:
        """``timeout_s`` bounds each silence of the other side; ten times that, the whole answer."""
        self._timeout = aiohttp.ClientTimeout(
            total=10 * timeout_s, sock_connect=min(_CONNECT_S, timeout_s), sock_read=timeout_s
        )
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, calls: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """The results of calls (method, parameters), in their order; an ``RpcError`` for a refusal.

        Several calls travel as one batch. Raises ``EndpointError``; safe to repeat as far as the
        calls are.
        """
        requests = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in enumerate(calls)
        ]
        answer = await self._exchange(url, requests[0] if len(requests) == 1 else requests)
        replies = [answer] if isinstance(answer, dict) else answer
        if not isinstance(replies, list):
            raise EndpointError("the answer is not JSON-RPC")
        return _in_order(replies, len(requests))

    async def close(self) -> None:
        """Closes the connections."""
        if self._session is not None:
            await self._session.close()

    async def _exchange(self, url: str, body: object) -> Any:  # noqa: ANN401 (any JSON)
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, raise_for_status=True)
        try:
            async with self._session.post(
                url, data=orjson.dumps(body), headers={"content-type": "application/json"}
            ) as response:
                return orjson.loads(await _read(response.content))
        except aiohttp.ClientResponseError as error:
            raise EndpointError(f"the endpoint answers with HTTP status {error.status}") from None
        except aiohttp.ClientConnectorError as error:
            raise EndpointError(f"cannot connect: {error.os_error.strerror}") from None
        except aiohttp.ClientError as error:
            raise EndpointError(f"the connection failed: {type(error).__name__}") from None
        except TimeoutError:
            raise EndpointError("no answer in time") from None
        except orjson.JSONDecodeError:
            raise EndpointError("the answer is not JSON") from None


async def _read(stream: aiohttp.StreamReader) -> bytes:
    body = bytearray()
    async for piece in stream.iter_chunked(_READ_BYTES):
        body += piece
        if len(body) > MAX_ANSWER_BYTES:
            raise EndpointError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return bytes(body)


def _in_order(replies: list[Any], count: int) -> list[Any]:
    results: dict[object, Any] = {}
    for reply in replies:
        if not isinstance(reply, dict):
            raise EndpointError("the answer is not JSON-RPC")
        results[reply.get("id")] = _result(reply)
    if len(replies) == 1 and None in results:
        # A refusal of the whole request has no id (specification, section 5).
        return [results[None]] * count
    try:
        return [results[number] for number in range(count)]
    except KeyError:
        raise EndpointError("the answer leaves out a part of what was asked") from None


def _result(reply: dict[str, Any]) -> Any:  # noqa: ANN401 (any JSON)
    error = reply.get("error")
    if error is None:
        return reply.get("result")
    if not isinstance(error, dict):
        raise EndpointError("the answer is not JSON-RPC")
    code = error.get("code", 0)
    return RpcError(code if isinstance(code, int) else 0, str(error.get("message", ""))[:200])
