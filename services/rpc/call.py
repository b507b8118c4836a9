"""One call, as handlers see it: the same object whichever server face took it from the wire."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

_current: ContextVar[Call | None] = ContextVar("tollmesh_call", default=None)


@dataclass(slots=True, eq=False)
class Call:
    """The second argument of every handler.

    Handlers are methods of the generated servicer classes and take ``context: object``; the first
    line of one that needs it is ``call = Call.of(context)``.
    """

    method: str
    """The full name: ``/tollmesh.credits.v1.CreditService/Debit``."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """What the caller sent, lower-case names; binary values (``-bin``) are left out."""
    deadline: float | None = None
    """On the clock of ``time.monotonic``; None when the caller set none."""
    request_id: str = ""
    """Names this call in logs; travels in ``x-request-id``. Never an idempotency key."""
    trace_parent: str = ""
    """W3C Trace Context, for the calls that this one makes."""
    peer: str = ""
    """The caller's address."""
    identity: str = ""
    """The caller's name by its TLS certificate; empty without mTLS."""
    trailing_metadata: dict[str, str] = field(default_factory=dict)
    """Sent behind the answer; printable ASCII."""
    log_fields: dict[str, object] = field(default_factory=dict)
    """Added to the call's canonical log line; never a secret."""

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
            _current.set(replace(call, deadline=None))

    def remaining_s(self) -> float | None:
        """Seconds until the deadline (not below 0); None when there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def note(self, **fields: object) -> None:
        """Adds to the call's canonical log line."""
        self.log_fields.update(fields)
