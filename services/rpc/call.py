"""One call, as handlers see it: the same object whichever server face took it from the wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from copy import copy
from types import MappingProxyType

from services.rpc.trace import (
    REQUEST_ID_KEY,
    TRACE_PARENT_KEY,
    request_id_of,
    trace_parent_of,
)

_NOTHING: Mapping[str, str] = MappingProxyType({})

_current: ContextVar[Call | None] = ContextVar("tollmesh_call", default=None)


class Call:
    """The second argument of every handler.

    Handlers are methods of the generated servicer classes and take ``context: object``; the first
    line of one that needs it is ``call = Call.of(context)``. What most calls never need is made
    when it is asked for.
    """

    __slots__ = (
        "_client",
        "_log_fields",
        "_request_id",
        "_trace_parent",
        "_trailing_metadata",
        "deadline",
        "identity",
        "metadata",
        "method",
    )

    def __init__(
        self,
        method: str,
        metadata: Mapping[str, str] = _NOTHING,
        deadline: float | None = None,
        *,
        request_id: str | None = None,
        trace_parent: str | None = None,
        peer: str | tuple[str, int] = "",
        identity: str = "",
    ) -> None:
        self.method = method
        """The full name: ``/tollmesh.credits.v1.CreditService/Debit``."""
        self.metadata = metadata
        """What the caller sent, lower-case names; binary values (``-bin``) are left out."""
        self.deadline = deadline
        """On the clock of ``time.monotonic``; None when the caller set none."""
        self.identity = identity
        """The caller's name by its TLS certificate; empty without mTLS."""
        self._request_id = request_id
        self._trace_parent = trace_parent
        self._client = peer
        self._trailing_metadata: dict[str, str] | None = None
        self._log_fields: dict[str, object] | None = None

    @property
    def request_id(self) -> str:
        """Names this call in logs; travels in ``x-request-id``. Never an idempotency key."""
        if self._request_id is None:
            self._request_id = request_id_of(self.metadata.get(REQUEST_ID_KEY))
        return self._request_id

    @property
    def trace_parent(self) -> str:
        """W3C Trace Context, for the calls that this one makes."""
        if self._trace_parent is None:
            self._trace_parent = trace_parent_of(self.metadata.get(TRACE_PARENT_KEY))
        return self._trace_parent

    @property
    def peer(self) -> str:
        """The caller's address."""
        client = self._client
        if type(client) is tuple:
            host, port = client
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return str(client)

    @property
    def trailing_metadata(self) -> dict[str, str]:
        """Sent behind the answer; printable ASCII."""
        if self._trailing_metadata is None:
            self._trailing_metadata = {}
        return self._trailing_metadata

    @property
    def log_fields(self) -> dict[str, object]:
        """Added to the call's canonical log line; never a secret."""
        if self._log_fields is None:
            self._log_fields = {}
        return self._log_fields

    @staticmethod
    def of(context: object) -> Call:
        """The call behind a handler's ``context`` argument."""
        if not isinstance(context, Call):
            msg = f"a handler was called with a {type(context).__name__} instead of a Call"
            raise TypeError(msg)
        return context

    @staticmethod
    def current() -> Call | None:
        """The call that this task serves, if it serves one."""
        return _current.get()

    @staticmethod
    def current_request_id() -> str | None:
        """The request id of the current call, for log lines."""
        call = _current.get()
        return None if call is None else call.request_id

    def activate(self) -> None:
        """Makes this the current call of the running task and of the tasks that it starts."""
        _current.set(self)

    @staticmethod
    def outlive_deadline() -> None:
        """Lets the running task go on calling other services after its call's deadline.

        For what must be done although the caller is gone, such as settling a hold. The call's ids
        stay; a call to another service then has only its own deadline.
        """
        call = _current.get()
        if call is not None:
            outliving = copy(call)
            outliving.deadline = None
            _current.set(outliving)

    def remaining_s(self) -> float | None:
        """Seconds until the deadline (not below 0); None when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def note(self, **fields: object) -> None:
        """Adds to the call's canonical log line."""
        self.log_fields.update(fields)
