"""Request ids for callers that give none.

The start time of the process in milliseconds, 64 random bits, and a counter: unique across
processes and machines, and in order of time within one.
"""

from __future__ import annotations

import itertools
import os
import secrets
import time

_counter = itertools.count()
_prefix = ""


def new_request_id() -> str:
    """An id that no other call has, here or elsewhere."""
    return f"{_prefix}{next(_counter):x}"


def _renew() -> None:
    """In a forked process the counter goes on, so the prefix must change."""
    global _prefix  # noqa: PLW0603 (the process's own)
    _prefix = f"{time.time_ns() // 1_000_000:x}-{secrets.token_hex(8)}-"


_renew()
os.register_at_fork(after_in_child=_renew)
