"""Names of a call across processes: the request id, and W3C Trace Context.

Format of ``traceparent``: https://www.w3.org/TR/trace-context/#traceparent-header, version 00.
"""

from __future__ import annotations

import os
import re

REQUEST_ID_KEY = "x-request-id"
TRACE_PARENT_KEY = "traceparent"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}").fullmatch
_TRACE_PARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch


def request_id_of(received: str | None) -> str:
    """The caller's request id when it is a harmless one, else a new one."""
    if received is not None and _REQUEST_ID(received):
        return received
    return os.urandom(12).hex()


def trace_parent_of(received: str | None) -> str:
    """The trace of the caller continued with a span of our own, or a new trace."""
    if received is not None and _TRACE_PARENT(received):
        return f"{received[:36]}{os.urandom(8).hex()}{received[52:]}"
    fresh = os.urandom(24).hex()
    return f"00-{fresh[:32]}-{fresh[32:]}-01"


def trace_id_of(trace_parent: str) -> str:
    """The trace's id, as logs have it."""
    return trace_parent[3:35]
