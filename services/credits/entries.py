"""Ledger entries as they are read: each is held against its digest before anything is made of it.

An entry has no checksum of its own. Its digest covers the one of the entry before, so that is read,
too.
"""

from __future__ import annotations

from collections.abc import Iterable

from services.credits.records import (
    DIGEST_BYTES,
    ENTRIES,
    Entry,
    decode_entry,
    entry_digest,
)
from services.store.errors import RecordDamagedError
from services.store.port import ReadTransaction


def entry_of(tx: ReadTransaction, account_id: str, number: int) -> Entry | None:
    """An entry by its number; raises ``RecordDamagedError``."""
    key = ENTRIES.key(account_id, number)
    value = tx.get(key)
    if value is None:
        return None
    return _checked(key, value, _digest_before(tx, account_id, number))


def checked_entries(
    tx: ReadTransaction, pairs: Iterable[tuple[bytes, bytes]]
) -> list[tuple[str, int, Entry]]:
    """Entries with their accounts and numbers, of pairs in key order.

    Raises ``RecordDamagedError``, also for an entry that is missing between two others.
    """
    found: list[tuple[str, int, Entry]] = []
    before, last = b"", ("", 0)
    for key, value in pairs:
        account, place = ENTRIES.parts(key)
        account_id, number = str(account), int(place)
        if (account_id, number - 1) != last:
            before = _digest_before(tx, account_id, number)
        found.append((account_id, number, _checked(key, value, before)))
        before, last = value[-DIGEST_BYTES:], (account_id, number)
    return found


def _digest_before(tx: ReadTransaction, account_id: str, number: int) -> bytes:
    if number == 1:
        return b""
    key = ENTRIES.key(account_id, number - 1)
    value = tx.get(key)
    if value is None:
        raise RecordDamagedError(key, "it is missing")
    return value[-DIGEST_BYTES:]


def _checked(key: bytes, value: bytes, before: bytes) -> Entry:
    if value[-DIGEST_BYTES:] != entry_digest(before, key, value[:-DIGEST_BYTES]):
        raise RecordDamagedError(key, "its digest is wrong, or that of the entry before it")
    return decode_entry(value)
