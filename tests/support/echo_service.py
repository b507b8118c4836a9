"""A service with one method of each kind, whose handlers do what a test passes in.

Its stubs are generated from tests/rpc/echo.proto when this module is imported.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from grpc_tools import protoc  # type: ignore[import-untyped]  # has none

from services.rpc.call import Call
from services.rpc.later import Later

ROOT = Path(__file__).parents[2]
Message = Any
"""A message of echo.proto; its class is made when this module is imported."""
Behaviour = Callable[[Message, Call], Awaitable[Message]]


def _generate() -> tuple[Any, Any]:
    with tempfile.TemporaryDirectory() as directory:
        arguments = [f"-I{ROOT}/tests/rpc", f"-I{ROOT}/protos", f"-I{_google_protos()}"]
        outputs = [f"--python_out={directory}", f"--grpc_python_out={directory}"]
        assert protoc.main(["protoc", *arguments, *outputs, "echo.proto"]) == 0
        sys.path.insert(0, directory)
        try:
            return import_module("echo_pb2"), import_module("echo_pb2_grpc")
        finally:
            sys.path.remove(directory)


def _google_protos() -> Path:
    return Path(protoc.__file__).parent / "_proto"


pb, pb_grpc = _generate()
_Generated: Any = pb_grpc.EchoServiceServicer


class EchoServicer(_Generated):  # type: ignore[misc]  # generated just now
    """Says what it hears, unless the request names one of its behaviours."""

    def __init__(self, **behaviours: Behaviour) -> None:
        self.behaviours = behaviours

    async def Say(self, request: Message, context: object) -> Message:  # noqa: N802 (the contract's name)
        return await self._answer(request, Call.of(context))

    def Ask(self, request: Message, context: object) -> Later[Message] | Message:  # noqa: N802 (the contract's name)
        """As Say, from a plain function."""
        if request.behaviour == "now":
            return pb.SayResponse(text=request.text)
        if request.behaviour == "raise":
            raise ValueError(request.text)
        answer = asyncio.ensure_future(self._answer(request, Call.of(context)))
        return Later(answer, self.finish)

    def finish(self, answer: Message) -> Message:
        """The last step of Ask."""
        if answer.text == "bad":
            raise ValueError(answer.text)
        return answer

    async def Count(self, request: Message, context: object) -> AsyncIterator[Message]:  # noqa: N802 (the contract's name)
        for _ in range(request.times):
            yield pb.SayResponse(text=request.text)
        if request.behaviour:
            yield await self._answer(request, Call.of(context))

    async def Join(self, request_iterator: AsyncIterator[Message], context: object) -> Message:  # noqa: N802 (the contract's name)
        text = ""
        async for request in request_iterator:
            text += (await self._answer(request, Call.of(context))).text
        return pb.SayResponse(text=text)

    async def Chat(  # noqa: N802 (the contract's name)
        self, request_iterator: AsyncIterator[Message], context: object
    ) -> AsyncIterator[Message]:
        async for request in request_iterator:
            yield await self._answer(request, Call.of(context))

    async def _answer(self, request: Message, call: Call) -> Message:
        if request.behaviour:
            return await self.behaviours[request.behaviour](request, call)
        return pb.SayResponse(text=request.text, payload=request.payload)


class ForeignEchoServicer(EchoServicer):
    """The same service under a name that another contract gives it."""

    served_as = "foreign.v3.Echo"
