"""Names that callers see, made from the numbers of ledger entries, so nothing here is random.

A grant and a hold are named by the entry that recorded them. Their names carry a mark of the
account, so that the hold of one account is not taken for another's that has the same number.
"""

from __future__ import annotations

from zlib import crc32


def entry_name(number: int) -> str:
    """Fixed width, so that the names of an account's entries sort as the entries do."""
    return f"{number:016x}"


def grant_name(account_id: str, number: int) -> str:
    """The ``grant_id`` of the grant that the account's entry ``number`` recorded."""
    return f"grant-{number:x}-{crc32(account_id.encode()):08x}"


def hold_name(account_id: str, number: int) -> str:
    """The ``hold_id`` of the hold that the account's entry ``number`` recorded."""
    return f"hold-{number:x}-{crc32(account_id.encode()):08x}"


def hold_number(account_id: str, name: str) -> int | None:
    """The number of a hold by its name; None for what is no hold's name on this account."""
    number = name[5:-9]
    if not number or not number.isalnum() or not number.isascii() or len(number) > 16:
        return None
    try:
        parsed = int(number, 16)
    except ValueError:
        return None
    return parsed if hold_name(account_id, parsed) == name else None
