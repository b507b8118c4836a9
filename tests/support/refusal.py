"""How a call was refused, read from the raw status: as another team's client would see it."""

from __future__ import annotations

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # has none

# What gives a service's insides away: traces, types, files, keys of the store, secrets.
INTERNALS = re.compile(
    r"Traceback|[A-Za-z]Error\b|Exception|\.py\b|(^|\s)/[a-z]+/|0x7f|lmdb|services\.|sqlite|"
    r"errno|tm_[a-z]+_|private|pepper",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Refusal:
    """The status of a refused call."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    metadata: dict[str, str]
    details: frozenset[str]
    """The kinds of further details: BadRequest, QuotaFailure, RetryInfo."""

    def leaks(self) -> str | None:
        """What of it shows the inside of a service, if anything does."""
        for text in (self.message, *self.metadata.values()):
            if found := INTERNALS.search(text):
                return f"{found.group()!r} in {text!r}"
        return None


async def refused(call: Awaitable[Any]) -> Refusal:
    """Awaits a call that must be refused, with exactly one ErrorInfo."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return _read(error)
    raise AssertionError(f"it was not refused, but answered {answer}")


async def refused_stream(call: Any) -> Refusal:  # noqa: ANN401 (any stream of answers)
    """Reads a stream that must end refused."""

    async def drain() -> str:
        return f"{len([message async for message in call])} messages"

    return await refused(drain())


def _read(error: grpc.aio.AioRpcError) -> Refusal:
    raw = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    assert isinstance(raw, bytes), f"{error.code()} without details: {error.details()}"
    status = status_pb2.Status.FromString(raw)
    infos, kinds = [], set()
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            infos.append(info)
        else:
            kinds.add(detail.type_url.rpartition(".")[2])
    assert len(infos) == 1, "exactly one ErrorInfo"
    assert status.code == error.code().value[0], "the details say what the status says"
    return Refusal(
        error.code(),
        error.details() or "",
        infos[0].reason,
        infos[0].domain,
        dict(infos[0].metadata),
        frozenset(kinds),
    )
