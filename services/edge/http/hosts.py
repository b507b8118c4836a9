"""The Host of a request (RFC 9112, section 3.2): one, and well-formed, or the answer is 400.

An edge answers alike whatever its name is; but what two readers could take for two hosts, a front
and the edge might take for two different requests.
"""

from __future__ import annotations

import re

from services.edge.http.problems import Headers
from services.rpc.errors import InvalidArgumentError

_NAME = rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
is_host = re.compile(rb"(?:%b|\[[0-9A-Fa-f:.vV]+\])(?::[0-9]*)?" % _NAME).fullmatch
"""Whether a value is a host with or without a port (RFC 3986, section 3.2.2)."""


def check_host(fields: Headers, http_version: str) -> None:
    """Refuses requests that do not name one host. Raises InvalidArgumentError."""
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) > 1 or (not hosts and http_version != "1.0"):
        raise InvalidArgumentError("A request has one Host header.")
    if hosts and not is_host(hosts[0]):
        raise InvalidArgumentError("Host is no host.")
