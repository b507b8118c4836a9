"""Pins and pin requests in the catalog. Each change is on the disk when its call returns."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from services.edge.cache.catalog import Catalog, Statement
from services.edge.objects import ObjectKey

REQUEST_RECORD_S = 48 * 3600.0
"""How long a repeated pin request is recognised."""

_ALL = """
SELECT account_id, network, cid, size_bytes, pinned_at, paid_until, due_from, due_until,
    refused_since
FROM pins ORDER BY pinned_at
"""
_PUT = """
INSERT OR REPLACE INTO pins (account_id, network, cid, size_bytes, pinned_at, paid_until, due_from,
    due_until, refused_since)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A period that is being paid for: whether it was is not known until it is paid or given up."""

    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Pin:
    """An object that an account keeps on this edge. Times are Unix times, in s."""

    account_id: str
    key: ObjectKey
    size_bytes: int
    pinned_at: float
    paid_until: float
    due: Due | None = None
    refused_since: float | None = None
    """Since when the account has not had the credit for the period that is due."""


@dataclass(frozen=True, slots=True)
class PinRequest:
    """A pin or unpin that was done, for those who repeat it."""

    account_id: str
    request_id: str
    verb: Literal["pin", "unpin"]
    object: str
    amount: int = 0
    currency: str = ""


class PinRecords:
    """The pins of one edge, as they are recorded. Raises CatalogError.

    Args:
        catalog: the database.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def edge_id(self) -> str:
        """What this catalog is called: unlike that of any other edge."""
        [(edge_id,)] = await self._catalog.read("SELECT id FROM edges")
        return str(edge_id)

    async def all(self) -> list[Pin]:
        """All pins, the oldest first."""
        rows = await self._catalog.read(_ALL)
        return [
            Pin(
                account_id,
                ObjectKey(network, cid),
                size_bytes,
                pinned_at,
                paid_until,
                None if due_from is None else Due(due_from, due_until),
                refused_since,
            )
            for (
                account_id,
                network,
                cid,
                size_bytes,
                pinned_at,
                paid_until,
                due_from,
                due_until,
                refused_since,
            ) in rows
        ]

    async def put(self, pin: Pin, request: PinRequest | None = None) -> None:
        """Records how a pin stands now, and the request that is done with it."""
        due = (pin.due.start, pin.due.end) if pin.due else (None, None)
        statements: list[Statement] = [
            (
                _PUT,
                pin.account_id,
                pin.key.network,
                pin.key.cid,
                pin.size_bytes,
                pin.pinned_at,
                pin.paid_until,
                *due,
                pin.refused_since,
            )
        ]
        if request is not None:
            statements += _requested(request)
        await self._catalog.change(*statements, durable=True)

    async def remove(self, pin: Pin, request: PinRequest | None = None) -> None:
        """Removes a pin, and records the request that is done with it."""
        requested = [] if request is None else _requested(request)
        await self._catalog.change(_removal(pin), *requested, durable=True)

    async def undo(self, pin: Pin) -> None:
        """Removes a pin and the requests that made it: they came to nothing."""
        forgetting: Statement = (
            "DELETE FROM requests WHERE account_id = ? AND verb = 'pin' AND object = ?",
            pin.account_id,
            str(pin.key),
        )
        await self._catalog.change(_removal(pin), forgetting, durable=True)

    async def add_request(self, request: PinRequest) -> None:
        """Records a request that changed nothing."""
        await self._catalog.change(*_requested(request))

    async def request(self, account_id: str, request_id: str) -> PinRequest | None:
        """The earlier request of this id, if it is still remembered."""
        rows = await self._catalog.read(
            "SELECT account_id, request_id, verb, object, amount, currency FROM requests"
            " WHERE account_id = ? AND request_id = ?",
            account_id,
            request_id,
        )
        return PinRequest(*rows[0]) if rows else None


def _removal(pin: Pin) -> Statement:
    return (
        "DELETE FROM pins WHERE account_id = ? AND network = ? AND cid = ?",
        pin.account_id,
        pin.key.network,
        pin.key.cid,
    )


def _requested(request: PinRequest) -> list[Statement]:
    now = time.time()
    return [
        ("DELETE FROM requests WHERE time_s < ?", now - REQUEST_RECORD_S),
        (
            "INSERT OR REPLACE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)",
            request.account_id,
            request.request_id,
            request.verb,
            request.object,
            request.amount,
            request.currency,
            now,
        ),
    ]
