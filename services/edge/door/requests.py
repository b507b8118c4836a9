"""What another proxy asks leave for, and what that amounts to."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from services.edge import admission
from services.edge.admission import Actions
from services.edge.credit.holds import Usage
from services.edge.door.tickets import BY_LOG

_TERMS: dict[str, tuple[Actions, str]] = {
    "GET": (admission.DOWNLOAD, "download"),
    "HEAD": (admission.STAT, ""),
    "OPTIONS": (admission.STAT, ""),
}
"""What a method amounts to, and the meter that it is paid by; any other one uploads."""
_UPLOAD: tuple[Actions, str] = (admission.UPLOAD, "upload")
_OBJECT = re.compile(r"/objects/([^/]+)/([^/]+)").fullmatch
_RESOURCE_CHARS = 256

SizeOf = Callable[[str, str], int | None]
"""The size of an object that is known here, by its network and CID."""


class GuestRequest(NamedTuple):
    """A request that another proxy wants to serve."""

    method: str
    host: str
    path: str
    """With its query, if there is one."""
    node: str = ""
    """Names the proxy."""
    request_key: str = ""
    """Names the request there; admitted once. Never what the reader chose. Empty: each is new."""
    estimate_bytes: int | None = None
    """The most that will be sent, as far as the proxy knows."""
    meter: str = ""
    """Empty: download or upload, by the method."""
    reporter: str = BY_LOG
    """Who will say what was sent; see tickets."""


class Terms(NamedTuple):
    """What a request amounts to."""

    actions: Actions
    meter: str
    """Empty when it costs nothing."""
    resource: str
    """For authorisations and the ledger: an object's name as elsewhere, else host and path."""
    object: tuple[str, str] | None
    """Network and CID of an object."""

    @classmethod
    def of(cls, request: GuestRequest) -> Terms:
        """The terms of a request."""
        actions, meter = _TERMS.get(request.method, _UPLOAD)
        path = request.path.partition("?")[0]  # a query may hold secrets
        found = _OBJECT(path) if path.startswith("/objects/") else None
        if found is None:
            resource = f"{request.host}{path}"[:_RESOURCE_CHARS]
            return cls(actions, meter and (request.meter or meter), resource, None)
        network, cid = found.groups()
        resource = f"{network}/{cid}"[:_RESOURCE_CHARS]
        return cls(actions, meter and (request.meter or meter), resource, (network, cid))

    def usage(self, account_id: str, request: GuestRequest, size_of: SizeOf, guess: int) -> Usage:
        """What is set aside: an object's size, else what the proxy says, else ``guess``."""
        quantity = None
        if self.object is not None and self.meter == "download":
            quantity = size_of(*self.object)
        if quantity is None:
            quantity = guess if request.estimate_bytes is None else request.estimate_bytes
        return Usage(account_id, self.meter, quantity, self.resource)
