"""Names of a call across processes: the request id, and W3C Trace Context.

Format of ``traceparent``: https://www.w3.org/TR/trace-context/#traceparent-header, version 00.
"""

from __future__ import annotations

import random
import re

REQUEST_ID_KEY = "x-request-id"
TRACE_PARENT_KEY = "traceparent"

_random_bits = random.getrandbits
_is_request_id = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}").fullmatch
_is_trace_parent = re.compile(
    r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).fullmatch


def request_id_of(received: str | None) -> str:
    """The caller's request id when it is a harmless one, else a new one."""
    if received is not None and _is_request_id(received):
        return received
    return f"{_random_bits(96):024x}"


def trace_parent_of(received: str | None) -> str:
    """The trace of the caller continued with a span of our own, or a new trace."""
    span = f"{_random_bits(64) or 1:016x}"
    if received is not None and _is_trace_parent(received):
        return f"{received[:36]}{span}{received[52:]}"
    return f"00-{_random_bits(128) or 1:032x}-{span}-01"


def trace_id_of(trace_parent: str) -> str:
    """The trace's id, as logs have it."""
    return trace_parent[3:35]
