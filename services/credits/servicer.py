"""The credit contract over the ledger: messages to arguments, results to messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import credits_pb2_grpc as pb_grpc

from services.credits import debit_messages, grant_messages, hold_messages, messages
from services.credits.debits import DEFAULT_CURRENCY
from services.credits.ledger import Ledger
from services.credits.parcels import Applied
from services.credits.queries import UsagePeriod
from services.rpc.call import Call
from services.rpc.errors import ServiceError
from services.rpc.later import Later


class CreditServicer(pb_grpc.CreditServiceServicer):
    """Grants, debits and holds."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def Grant(self, request: pb.GrantRequest, context: object) -> pb.GrantResponse:
        """Adds credit."""
        applied = await self._ledger.grant(grant_messages.to_grant(request))
        _note(context, applied)
        return grant_messages.grant_response(request.account_id, applied)

    async def VoidGrant(
        self, request: pb.VoidGrantRequest, context: object
    ) -> pb.VoidGrantResponse:
        """Takes a grant back."""
        applied = await self._ledger.void_grant(grant_messages.to_void_grant(request))
        _note(context, applied)
        return grant_messages.void_grant_response(request.account_id, applied)

    async def Refund(self, request: pb.RefundRequest, context: object) -> pb.RefundResponse:
        """Reverses a debit or capture."""
        applied = await self._ledger.refund(grant_messages.to_refund(request))
        _note(context, applied)
        return grant_messages.refund_response(request.account_id, applied)

    def Debit(self, request: pb.DebitRequest, context: object) -> Awaitable[pb.DebitResponse]:
        """Takes credit. Not a coroutine: this is the call that there are most of."""
        debit = debit_messages.to_debit(request)

        def answer(applied: Applied) -> pb.DebitResponse:
            _note(context, applied)
            return debit_messages.debit_response(debit.account_id, applied)

        return Later(self._ledger.debit(debit), answer)

    async def BatchDebit(
        self, request: pb.BatchDebitRequest, context: object
    ) -> pb.BatchDebitResponse:
        """Takes credit many times, each with its own outcome, or all or nothing."""
        debits = list(map(debit_messages.to_debit, request.debits))
        if request.all_or_nothing:
            outcomes = await self._ledger.debit_together(debits)
        else:
            outcomes = await self._ledger.batch_debit(debits)
        response = pb.BatchDebitResponse()
        for debit, outcome in zip(debits, outcomes, strict=True):
            debit_messages.add_outcome(response, debit.account_id, outcome)
        refused = sum(isinstance(outcome, ServiceError) for outcome in outcomes)
        Call.of(context).note(debits=len(debits), refused=refused)
        return response

    async def StreamDebits(
        self, request_iterator: AsyncIterator[pb.StreamDebitsRequest], context: object
    ) -> AsyncIterator[pb.StreamDebitsResponse]:
        """Takes credit without end."""
        messages = (
            [debit_messages.to_debit(debit) for debit in message.debits]
            async for message in request_iterator
        )
        done = refused = 0
        call = Call.of(context)
        async with aclosing(self._ledger.debit_stream(messages)) as parts:
            async for part in parts:
                response = pb.StreamDebitsResponse()
                for debit, outcome in zip(part.debits, part.outcomes, strict=True):
                    debit_messages.add_outcome(response, debit.account_id, outcome)
                    refused += isinstance(outcome, ServiceError)
                done += len(part.debits)
                call.note(debits=done, refused=refused)
                yield response

    async def Reserve(self, request: pb.ReserveRequest, context: object) -> pb.ReserveResponse:
        """Sets credit aside."""
        applied = await self._ledger.reserve(hold_messages.to_reserve(request))
        _note(context, applied)
        return hold_messages.reserve_response(request.account_id, applied)

    async def Capture(self, request: pb.CaptureRequest, context: object) -> pb.CaptureResponse:
        """Debits a hold."""
        applied = await self._ledger.capture(hold_messages.to_capture(request))
        _note(context, applied)
        return hold_messages.capture_response(request.account_id, applied)

    async def ExtendHold(
        self, request: pb.ExtendHoldRequest, context: object
    ) -> pb.ExtendHoldResponse:
        """Prolongs a hold."""
        applied = await self._ledger.extend_hold(hold_messages.to_extend_hold(request))
        _note(context, applied)
        return hold_messages.extend_hold_response(request.account_id, applied)

    async def Release(self, request: pb.ReleaseRequest, context: object) -> pb.ReleaseResponse:
        """Gives a hold back."""
        applied = await self._ledger.release(hold_messages.to_release(request))
        _note(context, applied)
        return hold_messages.release_response(request.account_id, applied)

    async def GetHold(self, request: pb.GetHoldRequest, context: object) -> pb.GetHoldResponse:
        """One hold."""
        del context
        account_id = request.account_id
        at_least = messages.version_number(request.at_least_version)
        page = await self._ledger.hold(account_id, request.hold_id, at_least)
        (hold,) = hold_messages.holds(account_id, page)
        return pb.GetHoldResponse(hold=hold, version=str(page.version))

    async def ListHolds(
        self, request: pb.ListHoldsRequest, context: object
    ) -> pb.ListHoldsResponse:
        """A page of the open holds."""
        del context
        account_id = request.account_id
        page = await self._ledger.open_holds(
            account_id,
            size=request.page_size,
            token=request.page_token,
            at_least=messages.version_number(request.at_least_version),
        )
        return pb.ListHoldsResponse(
            holds=hold_messages.holds(account_id, page),
            next_page_token=page.next_token,
            version=str(page.version),
        )

    async def GetBalance(
        self, request: pb.GetBalanceRequest, context: object
    ) -> pb.GetBalanceResponse:
        """What an account has in one currency."""
        del context
        currency = request.currency or DEFAULT_CURRENCY
        at_least = messages.version_number(request.at_least_version)
        view = await self._ledger.balance(request.account_id, currency, at_least)
        return messages.balance_response(request.account_id, currency, view)

    async def WatchBalance(
        self, request: pb.WatchBalanceRequest, context: object
    ) -> AsyncIterator[pb.WatchBalanceResponse]:
        """The balance, and its changes."""
        currency = request.currency or DEFAULT_CURRENCY
        changes = self._ledger.watch(
            request.account_id,
            currency,
            request.thresholds,
            crossings_only=request.thresholds_only,
            at_least=messages.version_number(request.at_least_version),
        )
        told = 0
        async with aclosing(changes):
            async for change in changes:
                told += 1
                Call.of(context).note(told=told)
                yield messages.watch_response(request.account_id, currency, change)

    async def ListEntries(
        self, request: pb.ListEntriesRequest, context: object
    ) -> pb.ListEntriesResponse:
        """A page of the ledger."""
        del context
        account_id = request.account_id
        page = await self._ledger.entries(
            account_id,
            size=request.page_size,
            token=request.page_token,
            newest_first=request.newest_first,
            at_least=messages.version_number(request.at_least_version),
        )
        return pb.ListEntriesResponse(
            entries=[
                messages.entry_message(account_id, number, entry) for number, entry in page.entries
            ],
            next_page_token=page.next_token,
            version=str(page.version),
        )

    async def GetUsage(self, request: pb.GetUsageRequest, context: object) -> pb.GetUsageResponse:
        """Usage by meter."""
        del context
        start_us = end_us = None
        if request.HasField("start_time"):
            start_us = messages.moment_us(request.start_time, "start_time")
        if request.HasField("end_time"):
            end_us = messages.moment_us(request.end_time, "end_time")
        used = await self._ledger.usage(
            request.account_id, start_us, end_us, UsagePeriod(request.period)
        )
        return pb.GetUsageResponse(
            usage=[messages.usage_message(line) for line in used.lines],
            version=str(used.version),
        )


def _note(context: object, applied: Applied) -> None:
    answer = applied.answer
    Call.of(context).note(amount=answer.amount, currency=answer.currency, replayed=applied.replayed)
