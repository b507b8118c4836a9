"""Several endpoints of one chain as if they were one that answers.

A question goes to the first endpoint that is well; what that one does not answer, or answers
wrongly, goes to the next. After a few failures in a row an endpoint is left alone for a while (a
circuit breaker) and then tried by a small question of its own, so that no caller waits for it. An
endpoint is asked for its chain id before anything else; one of another chain is never used.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.chain.errors import NetworkUnavailableError
from services.chain.networks.evm.jsonrpc import EndpointError, JsonRpc, RpcError
from services.process.logs import get_logger

_ROUNDS = 3
_BACKOFF_S = 0.15
_FAILURES_TO_OPEN = 3
_REST_S = 1.0
_MAX_REST_S = 30.0
# What may be the trouble of this endpoint alone: an internal error, too many requests.
_ENDPOINT_CODES = frozenset({-32603, -32005, -32097, 429})

_log = get_logger(__name__)


class AnswerRefusedError(Exception):
    """An answer that cannot be true. Counts against the endpoint; the next one is asked."""


class AnswerMissingError(Exception):
    """The endpoint does not have it. Nothing against the endpoint; the next one is asked."""


Check = Callable[[Any], Any]
"""Reads a result: gives what it means, or raises one of the two errors above."""


@dataclass(frozen=True, slots=True)
class Query:
    """A call, and how its result is read. It must be safe to repeat."""

    method: str
    params: tuple[Any, ...] = ()
    read: Check = field(default=lambda result: result)


@dataclass(slots=True, eq=False)
class Endpoint:
    """One endpoint and how it has been lately."""

    name: str
    """For logs: a number and not the URL, which may hold a key."""
    url: str
    checked: bool = False
    """Whether its chain id is known to be right."""
    failures: int = 0
    """In a row."""
    rests_until: float = 0.0
    """After a failure: when it is tried again, while others are well."""
    probing: bool = False

    def failed(self, reason: object, *, weight: int = 1) -> None:
        """Notes a failure: others are asked first for a while, and after some, others alone."""
        self.failures += weight
        self.checked = False
        doublings = min(max(self.failures - _FAILURES_TO_OPEN, 0) // _ROUNDS, 10)
        wait_s = min(_REST_S * 2**doublings, _MAX_REST_S) * random.uniform(0.75, 1.25)  # noqa: S311 (spreads load, no secret)
        self.rests_until = time.monotonic() + wait_s
        _log.warning("endpoint_failed", endpoint=self.name, reason=str(reason), count=self.failures)

    def worked(self) -> None:
        """Notes an answer."""
        if self.failures:
            _log.info("endpoint_recovered", endpoint=self.name)
        self.failures = 0


class Endpoints:
    """Asks endpoints in the order of the settings, the ones that are well first.

    Args:
        name: the network's, for logs and errors.
        urls: at least one.
        chain_id: what every endpoint must say; None takes what the first one says.
        timeout_s: how long an endpoint may stay silent.
    """

    def __init__(
        self, name: str, urls: Sequence[str], *, chain_id: int | None, timeout_s: float
    ) -> None:
        self._name = name
        self._rpc = JsonRpc(timeout_s)
        self._all = [Endpoint(f"{name}/{n}", url) for n, url in enumerate(urls, 1)]
        self._chain_id = chain_id
        self._probes: set[asyncio.Task[None]] = set()

    async def chain_id(self) -> int:
        """The chain's id. Raises ``NetworkUnavailableError``."""
        if self._chain_id is None:
            await self.ask_one("eth_chainId")
        assert self._chain_id is not None  # noqa: S101 (set by the check before any question)
        return self._chain_id

    async def ask_one(self, method: str, *params: Any, read: Check | None = None) -> Any:  # noqa: ANN401 (any JSON)
        """The answer to one question; None when no endpoint has it.

        Raises ``RpcError`` when the network refuses, ``NetworkUnavailableError`` when no endpoint
        answers.
        """
        query = Query(method, params) if read is None else Query(method, params, read)
        answer = (await self.ask([query]))[0]
        if isinstance(answer, RpcError):
            raise answer
        return answer

    async def ask(self, queries: Sequence[Query]) -> list[Any]:
        """The answers to several questions; an ``RpcError`` where the network refuses one.

        None stands for what no endpoint has. Raises ``NetworkUnavailableError``.
        """
        answers: dict[int, Any] = {}
        for round_ in range(_ROUNDS):
            if round_:
                await asyncio.sleep(_BACKOFF_S * 2**round_ * random.uniform(0.5, 1.5))  # noqa: S311 (spreads load)
            settled = await self._ask_each(queries, answers)
            if settled:
                return [answers.get(number) for number in range(len(queries))]
            if not self._usable():
                break
        raise NetworkUnavailableError(f"No endpoint of the network {self._name!r} answers.")

    async def ask_everyone(self, query: Query) -> list[Any]:
        """The answers of all endpoints that give one. Raises ``NetworkUnavailableError``."""
        found = []
        for endpoint in self._all:
            answers: dict[int, Any] = {}
            if await self._put(endpoint, [query], answers) and not isinstance(
                answers.get(0), RpcError
            ):
                found.append(answers.get(0))
        if not found:
            raise NetworkUnavailableError(f"No endpoint of the network {self._name!r} answers.")
        return found

    async def close(self) -> None:
        """Closes the connections."""
        for probe in self._probes:
            probe.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
        await self._rpc.close()

    async def _ask_each(self, queries: Sequence[Query], answers: dict[int, Any]) -> bool:
        """Asks endpoint after endpoint for what is still open; whether all is settled now."""
        missing_everywhere = False
        for endpoint in self._usable():
            missing_everywhere |= await self._put(endpoint, queries, answers)
            if len(answers) == len(queries):
                return True
        return missing_everywhere

    async def _put(
        self, endpoint: Endpoint, queries: Sequence[Query], answers: dict[int, Any]
    ) -> bool:
        """Puts the questions without an answer to one endpoint.

        Gives whether it was honest: then what is still without an answer is missing there.
        """
        still = [number for number in range(len(queries)) if number not in answers]
        try:
            await self._check_chain(endpoint)
            calls = [(queries[number].method, queries[number].params) for number in still]
            results = await self._rpc.post(endpoint.url, calls)
            for number, result in zip(still, results, strict=True):
                _accept(queries[number], number, result, answers)
        except AnswerRefusedError as error:
            endpoint.failed(error, weight=_FAILURES_TO_OPEN)
        except (EndpointError, RpcError) as error:
            endpoint.failed(error)
        else:
            endpoint.worked()
            return True
        return False

    async def _check_chain(self, endpoint: Endpoint) -> None:
        if endpoint.checked:
            return
        result = (await self._rpc.post(endpoint.url, [("eth_chainId", ())]))[0]
        if isinstance(result, RpcError):
            raise result
        found = quantity(result)
        if self._chain_id is None:
            self._chain_id = found
        if found != self._chain_id:
            raise AnswerRefusedError(f"its chain id is {found} and not {self._chain_id}")
        endpoint.checked = True

    def _usable(self) -> list[Endpoint]:
        """The endpoints to ask, best first. One that failed is probed when it has rested."""
        now = time.monotonic()
        well = [e for e in self._all if not e.failures]
        shaky = [e for e in self._all if 0 < e.failures < _FAILURES_TO_OPEN]
        due = [e for e in self._all if e.failures and e.rests_until <= now]
        if not well:
            return shaky or due
        for endpoint in due:
            self._probe(endpoint)
        return well + shaky

    def _probe(self, endpoint: Endpoint) -> None:
        if endpoint.probing:
            return
        endpoint.probing = True
        task = asyncio.create_task(self._try(endpoint))
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _try(self, endpoint: Endpoint) -> None:
        try:
            await self._put(endpoint, [Query("eth_chainId")], {})
        finally:
            endpoint.probing = False


def _accept(query: Query, number: int, result: object, answers: dict[int, Any]) -> None:
    """Notes an answer, unless the endpoint does not have it. Raises what counts against it."""
    if isinstance(result, RpcError):
        if result.code in _ENDPOINT_CODES:
            raise result
        answers[number] = result
        return
    try:
        answers[number] = query.read(result)
    except AnswerMissingError:
        return


def quantity(value: object) -> int:
    """Reads a QUANTITY of Ethereum's JSON-RPC. Raises ``AnswerRefusedError``."""
    try:
        return int(str(value), 16)
    except ValueError:
        raise AnswerRefusedError("a number is not one") from None
