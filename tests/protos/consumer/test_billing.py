"""A unit suite as another team would write it: no server, grpc_testing drives both ends."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc_testing
import pytest
from tollmesh.credits.v1 import credits_pb2, credits_pb2_grpc

SERVICE = credits_pb2.DESCRIPTOR.services_by_name["CreditService"]
DEBIT = SERVICE.methods_by_name["Debit"]


def bill(channel: grpc.Channel, account_id: str, amount: int) -> int:
    """The code under test: what is left after a debit."""
    request = credits_pb2.DebitRequest(request_id="r1", account_id=account_id, amount=amount)
    answer = credits_pb2_grpc.CreditServiceStub(channel).Debit(request, timeout=1)
    return answer.balance.available


class Channel:
    """Answers the one call that the code under test makes."""

    def __init__(self) -> None:
        self.channel: Any = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())

    def answer(self, amount: int) -> tuple[Any, credits_pb2.DebitRequest]:
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(bill, self.channel, "acc_1", amount)
            _, request, rpc = self.channel.take_unary_unary(DEBIT)
            rpc.send_initial_metadata(())
            if amount > 100:
                rpc.terminate(None, (), grpc.StatusCode.FAILED_PRECONDITION, "not enough credit")
            else:
                balance = credits_pb2.Balance(available=100 - amount)
                reply = credits_pb2.DebitResponse(amount=amount, balance=balance)
                rpc.terminate(reply, (), grpc.StatusCode.OK, "")
            return result.exception(timeout=5) or result.result(), request


def test_the_client_sends_what_the_contract_asks_for() -> None:
    left, request = Channel().answer(40)
    assert left == 60
    assert (request.request_id, request.account_id, request.amount) == ("r1", "acc_1", 40)


def test_the_client_sees_a_refusal_as_its_status() -> None:
    error, _ = Channel().answer(400)
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


class FakeCredits(credits_pb2_grpc.CreditServiceServicer):
    """A sync fake of the credit service, for a team's own server-side tests."""

    def __init__(self) -> None:
        self.left = 100
        self.lock = threading.Lock()

    def Debit(  # noqa: N802 (the contract's name)
        self,
        request: credits_pb2.DebitRequest,
        context: Any,  # noqa: ANN401 (grpc_testing gives a context of its own)
    ) -> credits_pb2.DebitResponse:
        with self.lock:
            if request.amount > self.left:
                context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not enough credit")
            self.left -= request.amount
            balance = credits_pb2.Balance(available=self.left)
            return credits_pb2.DebitResponse(amount=request.amount, balance=balance)


@pytest.mark.parametrize(("amount", "code"), [(30, grpc.StatusCode.OK)])
def test_a_fake_servicer_runs_on_the_testing_server(amount: int, code: grpc.StatusCode) -> None:
    server = grpc_testing.server_from_dictionary(
        {SERVICE: FakeCredits()},  # type: ignore[abstract]  # it serves one method
        grpc_testing.strict_real_time(),
    )
    request = credits_pb2.DebitRequest(request_id="r1", account_id="acc_1", amount=amount)
    call = server.invoke_unary_unary(DEBIT, (), request, 1)
    response, _, status, _ = call.termination()
    assert status is code
    assert response.balance.available == 100 - amount
