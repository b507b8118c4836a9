"""The lease contract over the ledger: messages to arguments, results to messages."""

from __future__ import annotations

from tollmesh.credits.v1 import leases_pb2 as pb
from tollmesh.credits.v1 import leases_pb2_grpc as pb_grpc

from services.credits import hold_messages
from services.credits.ledger import Ledger
from services.rpc.call import Call


class LeaseServicer(pb_grpc.LeaseServiceServicer):
    """Long holds that their owners spend by themselves."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def OpenLease(
        self, request: pb.OpenLeaseRequest, context: object
    ) -> pb.OpenLeaseResponse:
        """Sets credit aside for an owner."""
        applied = await self._ledger.open_lease(hold_messages.to_open_lease(request))
        answer = applied.answer
        Call.of(context).note(
            amount=answer.amount, currency=answer.currency, replayed=applied.replayed
        )
        return hold_messages.open_lease_response(request.account_id, applied)

    async def SettleLease(
        self, request: pb.SettleLeaseRequest, context: object
    ) -> pb.SettleLeaseResponse:
        """Debits what an owner spent."""
        applied = await self._ledger.settle_lease(hold_messages.to_settle_lease(request))
        answer = applied.answer
        Call.of(context).note(
            amount=answer.amount,
            currency=answer.currency,
            spendings=len(request.spendings),
            replayed=applied.replayed,
        )
        return hold_messages.settle_lease_response(request.account_id, applied)

    async def GetTariff(
        self,
        request: pb.GetTariffRequest,  # noqa: ARG002 (it says nothing)
        context: object,  # noqa: ARG002 (there is nothing to note)
    ) -> pb.GetTariffResponse:
        """What every meter costs."""
        return hold_messages.tariff_response(self._ledger.tariff)
