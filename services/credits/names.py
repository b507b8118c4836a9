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


def entry_number(name: str) -> int | None:
    """The number of an entry by its name; None for what is no entry's name."""
    number = _hexadecimal(name)
    return number if number is not None and entry_name(number) == name else None


def grant_number(account_id: str, name: str) -> int | None:
    """The number of a grant by its name; None for what is no grant's name on this account."""
    number = _hexadecimal(name[6:-9])
    return number if number is not None and grant_name(account_id, number) == name else None


def hold_number(account_id: str, name: str) -> int | None:
    """The number of a hold by its name; None for what is no hold's name on this account."""
    number = _hexadecimal(name[5:-9])
    return number if number is not None and hold_name(account_id, number) == name else None


def _hexadecimal(text: str) -> int | None:
    if not text or not text.isalnum() or not text.isascii() or len(text) > 16:
        return None
    try:
        return int(text, 16)
    except ValueError:
        return None
