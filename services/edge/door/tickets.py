"""Tickets: what another proxy is given for a request that was admitted, to report what it sent.

A ticket passes through foreign hands, so its text is sealed with a key of this edge. It carries
what is needed to settle it when the process that gave it is gone.

Format: eight fields and a seal, joined with ``~``, all of them characters that mean nothing in a
header or a URL: version and who reports, the process that gave it, its number there, account,
meter, estimate, hold (empty for credit out of a lease), resource (hexadecimal), and the keyed
BLAKE2b of what stands before (hexadecimal, 128 bits).
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
from pathlib import Path
from typing import NamedTuple, Self

from services.edge.credit.holds import Usage
from services.edge.credit.payments import Payment

BY_LOG, BY_ENVOY = "1", "e1"
"""Who reports on a ticket, and version of the format: lines of a log, or an Envoy that calls.

Readers may see tickets of the first kind, and may be able to call as Envoys do.
"""
_SEPARATOR = "~"
_KEY_BYTES, _SEAL_BYTES = 32, 16
_LONGEST = 1024


class Ticket:
    """Leave to deliver one answer, and what was set aside for it."""

    __slots__ = ("_payment", "account_id", "id")

    def __init__(self, text: str, account_id: str, payment: Payment | None = None) -> None:
        self.id = text
        """Opaque text, safe in a header and in a URL; empty when there is nothing to report."""
        self.account_id = account_id
        self._payment = payment

    @property
    def amount(self) -> int:
        """What it costs, at most, for the estimate."""
        return 0 if self._payment is None else self._payment.amount

    @property
    def currency(self) -> str:
        """Of the amount; empty when it costs nothing."""
        return "" if self._payment is None else self._payment.currency

    @property
    def available(self) -> int:
        """What the account can spend besides, as far as is known here."""
        return 0 if self._payment is None else self._payment.available

    @property
    def ends_at(self) -> float:
        """When the delivery must have been reported, on the clock of ``time.monotonic``."""
        return math.inf if self._payment is None else self._payment.ends_at


def free_ticket(account_id: str) -> Ticket:
    """For a request that costs nothing."""
    return Ticket("", account_id)


class Stub(NamedTuple):
    """What a ticket's text says."""

    process: str
    """Names the process that gave the ticket."""
    number: int
    """Of the ticket in that process."""
    account_id: str
    meter: str
    quantity: int
    """The estimate."""
    hold_id: str
    """Empty when it was paid out of a lease."""
    resource: str

    @property
    def request_id(self) -> str:
        """What the ids of the requests that settle it late are made of."""
        return f"ticket-{self.process}-{self.number}"


class Seal:
    """Writes and reads tickets.

    Args:
        key: of this edge; 32 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._keyed = hashlib.blake2b(key=key, digest_size=_SEAL_BYTES)

    @classmethod
    def of(cls, path: Path) -> Self:
        """With the key in a file, which is made when it is not there. Raises OSError."""
        try:
            key = path.read_bytes()
        except FileNotFoundError:
            key = b""
        if len(key) != _KEY_BYTES:  # none, or the process that made it was killed
            key = os.urandom(_KEY_BYTES)
            partial = path.with_name(f".{path.name}")
            partial.touch(mode=0o600)
            partial.write_bytes(key)
            partial.replace(path)
        return cls(key)

    def write(
        self, process: str, number: int, usage: Usage, hold_id: str, reporter: str = BY_LOG
    ) -> str:
        """The text of a ticket; see Stub."""
        text = (
            f"{reporter}~{process}~{number}~{usage.account_id}~{usage.meter}~{usage.quantity}~"
            f"{hold_id}~{usage.resource.encode().hex()}~"
        )
        return text + self._seal(text)

    def read(self, text: str) -> Stub | None:
        """What a ticket says; None for what this edge did not write."""
        if len(text) > _LONGEST or not text.isascii():
            return None
        body, separator, seal = text.rpartition(_SEPARATOR)
        if not hmac.compare_digest(self._seal(body + separator), seal):
            return None
        version, process, number, account_id, meter, quantity, hold_id, encoded = body.split(
            _SEPARATOR
        )
        resource = bytes.fromhex(encoded).decode()
        if version not in {BY_LOG, BY_ENVOY}:  # of another version of this program
            return None
        return Stub(process, int(number), account_id, meter, int(quantity), hold_id, resource)

    def _seal(self, text: str) -> str:
        keyed = self._keyed.copy()
        keyed.update(text.encode())
        return keyed.hexdigest()


def is_of_envoy(text: str) -> bool:
    """Whether an Envoy may report under a ticket, whether it is genuine or not."""
    return text.startswith(BY_ENVOY + _SEPARATOR)


def meter_of(text: str) -> str:
    """The meter that a ticket's text names, whether it is genuine or not."""
    fields = text.split(_SEPARATOR, 5)
    return fields[4] if len(fields) > 5 else ""
