"""What a connection is told that is refused before its request is one: no handler hears of it."""

from __future__ import annotations

import re
import sys
import time
from http import HTTPStatus

import httptools

from services.edge.http.exchange import date_of
from services.edge.http.problems import MethodUnknownError, problem
from services.rpc.errors import InvalidArgumentError, ServiceError

_REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n").match


def unread(message: bytes, what: str) -> ServiceError:
    """What is wrong with a request whose parser has just failed; its error is being handled.

    The parser knows the methods that HTTP has by now, and stops at others as at any garbage; but
    what begins like a request (RFC 9112, section 3) is one, by a method that is unknown here.

    Args:
        message: as much of it as is here, from its beginning; empty when that was read before.
        what: what to say of garbage.
    """
    stopped_at_method = isinstance(sys.exception(), httptools.HttpParserInvalidMethodError)
    if stopped_at_method and _REQUEST_LINE(message):
        return MethodUnknownError()
    return InvalidArgumentError(what)


def refusal(error: ServiceError) -> bytes:
    """A whole answer, with a problem, after which the connection ends."""
    answer = problem(error)
    start = b"HTTP/1.1 %d %b\r\n" % (answer.status, HTTPStatus(answer.status).phrase.encode())
    date = (b"date", date_of(int(time.time())))
    fields = (*answer.headers, date, (b"connection", b"close"))
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    return start + head + b"\r\n" + answer.body
