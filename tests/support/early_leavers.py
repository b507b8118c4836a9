"""Many downloads from one server, each broken off somewhere, and what must be paid for them."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tests.support.on_threads import on_threads
from tests.support.raw_reader import RawReader

_AT_ONCE = 24
_RECEIVE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Broken:
    """One of them."""

    arrived: int
    """The body's bytes that reached the reader's machine."""
    in_flight: int
    """At most so many more were in buffers of the kernel when the reader left."""


async def break_off(
    port: int,
    requests: Sequence[tuple[str, Mapping[str, str]]],
    size_bytes: int,
    dice: random.Random,
    *,
    send_buffer_bytes: int,
) -> list[Broken]:
    """Breaks off a download for each request (path and headers), some at once, anywhere in it.

    Half of the readers stall before they leave: what is in flight is in the server's buffer. The
    others leave amid the flow, when bytes arrive while they are counted.
    """
    plans = [
        (dice.randrange(1, size_bytes), dice.random() < 0.5, dice.random() < 0.5) for _ in requests
    ]
    calls = [
        (port, request, plan, send_buffer_bytes)
        for request, plan in zip(requests, plans, strict=True)
    ]
    return await on_threads(_broken, calls, at_once=_AT_ONCE)


def unmatched(paid: Iterable[int], broken: Iterable[Broken]) -> str:
    """Why these payments cannot be one for each download, each within its bounds; else empty."""
    bounds = sorted((one.arrived, one.arrived + one.in_flight) for one in broken)
    quantities = sorted(paid)
    if len(quantities) != len(bounds):
        return f"{len(quantities)} payments for {len(bounds)} downloads"
    open_tops: list[int] = []
    position = 0
    for quantity in quantities:
        while position < len(bounds) and bounds[position][0] <= quantity:
            heapq.heappush(open_tops, bounds[position][1])
            position += 1
        if not open_tops:
            return f"{quantity} bytes are less than any download that is left received"
        if heapq.heappop(open_tops) < quantity:
            return f"{quantity} bytes are more than were sent"
    return ""


def _broken(
    port: int,
    request: tuple[str, Mapping[str, str]],
    plan: tuple[int, bool, bool],
    send_buffer_bytes: int,
) -> Broken:
    count, stalls, reset = plan
    reader = RawReader("127.0.0.1", port, receive_buffer_bytes=_RECEIVE_BYTES)
    try:
        reader.request(*request)
        assert b" 200 " in reader.head.partition(b"\r\n")[0], reader.head
        # Piece by piece: copies of megabytes on so many threads would hold up the servers here.
        for left in range(count, 0, -_RECEIVE_BYTES):
            reader.read(min(left, _RECEIVE_BYTES))
        # The kernel doubles both sizes (socket(7)).
        if stalls:
            return Broken(reader.arrived(), 2 * send_buffer_bytes)
        return Broken(reader.buffered(), 2 * (_RECEIVE_BYTES + send_buffer_bytes))
    finally:
        reader.close(reset=reset)
