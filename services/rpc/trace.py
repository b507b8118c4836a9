"""Names of a call across processes: the request id, and W3C Trace Context.

Format of ``traceparent``: https://www.w3.org/TR/trace-context/#traceparent-header, version 00.
"""

from __future__ import annotations

import os
import re

REQUEST_ID_KEY = "x-request-id"
TRACE_PARENT_KEY = "traceparent"

_POOL = 256
_ids: list[str] = []
"""New ids of 32 hexadecimal digits: made many at a time, one costs next to nothing."""
_is_request_id = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}").fullmatch
_is_trace_parent = re.compile(
    r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch


def request_id_of(received: str | None) -> str:
    """The caller's request id when it is a harmless one, else a new one."""
    if received is not None and _is_request_id(received):
        return received
    return _new_id()[:24]


def trace_parent_of(received: str | None) -> str:
    """The trace of the caller continued with a span of our own, or a new trace."""
    span = _new_id()[:16]
    if received is not None and _is_trace_parent(received):
        return f"{received[:36]}{span}{received[52:]}"
    return f"00-{_new_id()}-{span}-01"


def trace_id_for(received: str | None) -> str:
    """The id of the caller's trace, or of a new one: for what makes no calls itself."""
    if received is not None and _is_trace_parent(received):
        return trace_id_of(received)
    return _new_id()


def trace_id_of(trace_parent: str) -> str:
    """The trace's id, as logs have it."""
    return trace_parent[3:35]


def _new_id() -> str:
    try:
        return _ids.pop()
    except IndexError:
        digits = os.urandom(16 * _POOL).hex()
        _ids.extend(digits[start : start + 32] for start in range(0, len(digits), 32))
        return _ids.pop()
