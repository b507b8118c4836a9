"""The credit service's methods behind a server's pipeline, without a wire; and what the model says.

Bytes in and bytes out: requests are parsed and validated as any face has it, errors are written and
read as they cross the wire. What two outcomes have in common is made comparable here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from fractions import Fraction
from typing import Any

from google.protobuf.message_factory import GetMessageClass
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.errors import ERRORS, STORE_ERRORS
from services.rpc import wire
from services.rpc.call import Call
from services.rpc.errors import ServiceError
from services.rpc.methods import methods_of, service_of
from services.rpc.pipeline import Limits, Pipeline
from tests.support.credit_model.books import Refused
from tests.support.credit_model.model import Message, Model
from tests.support.credit_model.prices import Meter, Tariff
from tests.support.credit_service import PRICES, CreditService

Outcome = tuple[str, Any]
"""``OK`` and the answer, or a reason and its metadata."""

_CLASSES = wire.classes_by_reason(ERRORS)


class CreditCalls:
    """Calls of one service in this process, one after the other: versions must never fall."""

    def __init__(self, service: CreditService, version: int = 0) -> None:
        """``version``: of an answer that was had before."""
        self.version = version
        pipeline = Pipeline(Limits(), STORE_ERRORS)
        pipeline._lines._wanted = False  # thousands of lines would hide what failed
        self._methods: dict[str, Any] = {}
        self._answers: dict[str, Any] = {}
        for servicer in service.servicers:
            described = service_of(servicer).methods_by_name
            for method in methods_of(servicer):
                name = method.path.rpartition("/")[2]
                streams = method.server_streaming
                wrap = pipeline.stream_answer if streams else pipeline.unary_answer
                self._methods[name] = wrap(method)
                self._answers[name] = GetMessageClass(described[name].output_type)

    async def __call__(self, method: str, request: Message) -> Message:
        """The answer; of ``StreamDebits``, to a stream of one message, all in one.

        Raises what a client's stub would raise.
        """
        try:
            if method == "StreamDebits":
                answer = await self._stream(request)
            else:
                raw = await self._methods[method](request.SerializeToString(), Call(method))
                answer = self._answers[method].FromString(raw)
        except ServiceError as error:
            told = wire.decode(wire.encode(error), _CLASSES)
            raise told or TypeError("no error of the contract") from error
        self._look_at_versions(request, answer)
        return answer

    async def messages(self, method: str, request: Message, most: int = 0) -> list[Message]:
        """What a stream answers; not more than ``most``, if that is given."""
        found: list[Message] = []
        stream = self._methods[method](request.SerializeToString(), Call(method))
        async with aclosing(stream) as raws:
            async for raw in raws:
                found.append(self._answers[method].FromString(raw))
                if len(found) == most:
                    break
        return found

    async def outcome(self, method: str, request: Message) -> Outcome:
        """What it answers, or why it is refused; comparable to the model's."""
        try:
            return "OK", plain(await self(method, request))
        except ServiceError as error:
            return error.reason_name(), dict(error.metadata)

    def _look_at_versions(self, request: Message, answer: Message) -> None:
        """Reads are as new as what was answered before, and what changes something is newer."""
        outcomes = getattr(answer, "outcomes", None)
        parts = [answer] if outcomes is None else [outcome.debit for outcome in outcomes]
        fresh = [part for part in parts if part.version and not getattr(part, "replayed", False)]
        changes = outcomes is not None or hasattr(request, "request_id")
        for part in fresh:
            version = int(part.version)
            assert version >= self.version + changes, f"{answer}\nafter version {self.version}"
        self.version = max([self.version, *(int(part.version) for part in fresh)])

    async def _stream(self, request: Message) -> Message:
        async def messages() -> AsyncIterator[bytes]:
            yield request.SerializeToString()

        whole = pb.StreamDebitsResponse()
        async for raw in self._methods["StreamDebits"](messages(), Call("StreamDebits")):
            whole.MergeFromString(raw)
        return whole


def expected(model: Model, method: str, request: Message, now_us: int) -> Outcome:
    """What the model says."""
    try:
        return "OK", model.apply(method, request, now_us)
    except Refused as refused:
        return refused.reason, refused.metadata


def plain(answer: Message) -> Message:
    """Without what the model does not have: versions, and words for people."""
    if hasattr(answer, "version"):
        answer.version = ""
    for outcome in getattr(answer, "outcomes", ()):
        if outcome.HasField("error"):
            outcome.error.message = ""
        else:
            outcome.debit.version = ""
    return answer


def model_tariff() -> Tariff:
    """The tariff of ``CreditService``, for the model."""
    return {
        name: Meter(
            price.currency,
            Fraction(price.miss),
            Fraction(price.miss if price.hit is None else price.hit),
            price.free,
            price.free_period,
            price.minimum,
            price.shadow,
        )
        for name, price in PRICES.items()
    }
