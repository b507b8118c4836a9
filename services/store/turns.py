"""Turns at a lane that several clients commit to: so that nobody's work is in vain for long.

Transactions that touch the same keys cannot overlap: of two, the later one has worked for nothing.
A client whose batches are large then loses to one whose batches are small, again and again. So a
client that lost twice in a row *stands in line*: it puts a ticket into the database, and goes on
when nobody's earlier ticket is left there; the commit takes its own ticket away. A lane's next
batch is only made when its turn has come, so it has everything that arrived meanwhile.

Clients that do not stand in line are told by a conflict: they read a key that each new ticket
writes. Who finds nobody before it a few times running leaves the line, and pays nothing any more.

All this is a hint. What keeps commits correct are the database's transactions alone: a ticket that
is lost, kept too long (its client died), or taken twice costs time and nothing else.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from services.store.errors import StoreError
from services.store.layer import Layer
from services.store.optimistic import MARK_BYTES, AttemptFailed, CommitUnknown, Database

LINES = b"\xffline/"
"""Where tickets stand: this, the lane, the client. Their values order them by their commits."""
WANTED = b"\xffwanted/"
"""Keys, by lane, that every new ticket writes."""
LOSSES = 2
"""So many conflicts one after the other, and a client stands in line."""
CALM = 8
"""So often nobody before it, and it does so no longer."""
PATIENCE_S = 0.5
"""How long another's turn may take; then its ticket is thought to be forgotten."""
_FIRST_LOOK_S = 0.001
_LAST_LOOK_S = 0.004
"""How soon one looks again whether it is one's turn, for each client before one."""
_TICKET = bytes(MARK_BYTES)


@dataclass(slots=True)
class _Lane:
    """What a client knows of a lane."""

    losses: int = 0
    crowded: bool = False
    calm: int = 0
    tickets: list[bytes] = field(default_factory=list)
    """What its next commit takes away: its own ticket, and forgotten ones."""


class Lines:
    """One client's turns at the lanes of a database: ``services.store.optimistic.Turns``."""

    def __init__(self, database: Database, client: bytes, lanes: int) -> None:
        self._database = database
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._lanes = [_Lane() for _ in range(lanes)]

    async def come(self, number: int) -> None:
        """As the seam says; does not wait longer than ``PATIENCE_S`` for anybody."""
        lane = self._lanes[number]
        if not lane.crowded or lane.tickets:
            return
        try:
            others = await self._stand_in_line(number, lane)
        except (AttemptFailed, CommitUnknown, StoreError):
            return  # and goes on out of turn
        lane.calm = 0 if others else lane.calm + 1
        lane.crowded = lane.calm < CALM

    async def lost(self, number: int) -> None:
        """As the seam says."""
        lane = self._lanes[number]
        lane.losses += 1
        if not lane.crowded and (lane.losses >= LOSSES or await self._is_wanted(number)):
            lane.crowded, lane.calm = True, 0
        await self.come(number)

    def reads(self, number: int) -> list[bytes]:
        """As the seam says: a key that each new ticket writes."""
        return [] if self._lanes[number].tickets else [WANTED + bytes([number])]

    def leave(self, number: int, layer: Layer) -> None:
        """As the seam says."""
        layer.cleared += [(key, key + b"\x00") for key in self._lanes[number].tickets]

    def over(self, number: int) -> None:
        """As the seam says."""
        lane = self._lanes[number]
        lane.losses = 0
        lane.tickets.clear()

    async def _stand_in_line(self, number: int, lane: _Lane) -> bool:
        """Waits until nobody is before this client; whether anybody was."""
        ticket = LINES + bytes([number]) + self._client
        lane.tickets.append(ticket)
        attempt = self._database.begin()
        layer = await attempt.run((), Layer)
        layer.set(WANTED + bytes([number]), b"")
        await attempt.commit(layer, ticket, _TICKET)
        before = await self._before(number, ticket)
        others, pause_s = bool(before), _FIRST_LOOK_S
        until = self._loop.time() + PATIENCE_S
        while before:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LAST_LOOK_S * len(before))
            still = await self._before(number, ticket)
            if len(still) < len(before):  # somebody had a turn
                until, pause_s = self._loop.time() + PATIENCE_S, _FIRST_LOOK_S
            elif self._loop.time() > until:
                lane.tickets += still
                break
            before = still
        return others

    async def _is_wanted(self, number: int) -> bool:
        """Whether anybody stands in line."""
        try:
            return bool(await self._line(number))
        except (AttemptFailed, StoreError):
            return False

    async def _before(self, number: int, ticket: bytes) -> list[bytes]:
        """The tickets before one that is there."""
        line = await self._line(number)
        mine = next((value for key, value in line if key == ticket), b"")
        return [key for key, value in line if value < mine]

    async def _line(self, number: int) -> list[tuple[bytes, bytes]]:
        begin, end = LINES + bytes([number]), LINES + bytes([number + 1])
        return await self._database.begin().run((), lambda snapshot: snapshot.range(begin, end))
