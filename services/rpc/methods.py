"""The methods of a servicer, found through its generated class; face-neutral."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC and the function that handles it."""

    path: str
    """``/tollmesh.credits.v1.CreditService/Debit``"""
    handler: Callable[[Any, Any], Any]
    """The servicer's bound method: takes a request (or an async iterator of them) and a Call.

    A coroutine function, or a plain function that gives the answer (which may be ``Encoded``) or a
    ``Later``; with ``server_streaming`` an async generator function.
    """
    request_class: type[Message]
    client_streaming: bool
    server_streaming: bool
    has_account: bool
    """Whether the request names an ``account_id``, for the log."""

    @property
    def needs_task(self) -> bool:
        """Whether its handler runs in a task: not when it is a plain function."""
        streams = self.client_streaming or self.server_streaming
        return streams or iscoroutinefunction(self.handler)


def service_of(servicer: object) -> ServiceDescriptor:
    """The service that a servicer implements.

    Raises TypeError when its class is not derived from a generated servicer class (one named
    ``XServicer`` in a module ``x_pb2_grpc``, beside ``x_pb2``).
    """
    generated = _generated_class(servicer)
    messages = sys.modules[generated.__module__.removesuffix("_grpc")]
    services = messages.DESCRIPTOR.services_by_name
    service: ServiceDescriptor = services[generated.__name__.removesuffix("Servicer")]
    return service


def name_of(servicer: object) -> str:
    """The full name under which a servicer's service is called.

    Its own; or, for a contract of others that is written down here, the one that its class gives as
    ``served_as`` (``envoy.service.auth.v3.Authorization``).
    """
    own: str = service_of(servicer).full_name
    name: str = getattr(type(servicer), "served_as", own)
    return name


def methods_of(servicer: object) -> Iterator[Method]:
    """The methods that a servicer implements; what it leaves out is answered UNIMPLEMENTED."""
    service, name = service_of(servicer), name_of(servicer)
    generated = _generated_class(servicer)
    for method in service.methods:
        if getattr(type(servicer), method.name) is not getattr(generated, method.name):
            yield _method(name, method, getattr(servicer, method.name))


def _method(
    service_name: str, method: MethodDescriptor, handler: Callable[[Any, Any], Any]
) -> Method:
    return Method(
        path=f"/{service_name}/{method.name}",
        handler=handler,
        request_class=GetMessageClass(method.input_type),
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
        has_account="account_id" in method.input_type.fields_by_name,
    )


def _generated_class(servicer: object) -> type:
    for candidate in type(servicer).__mro__:
        if candidate.__module__.endswith("_pb2_grpc") and candidate.__name__.endswith("Servicer"):
            return candidate
    name = type(servicer).__name__
    raise TypeError(f"{name} is not derived from a generated servicer class")
