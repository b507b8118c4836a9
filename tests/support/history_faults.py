"""Credit servicers that misbehave on purpose, to see that the checker of histories notices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits.ledger import Ledger
from services.credits.servicer import CreditServicer


class _Faulty(CreditServicer):
    """Does one fault to every seventh debit of an amount that the account has."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._debits = 0
        self._later: set[asyncio.Task[pb.DebitResponse]] = set()

    async def Debit(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:  # noqa: N802 (the contract's name)
        self._debits += 1
        if self._debits % 7 or request.WhichOneof("price") != "amount" or not request.amount:
            return await super().Debit(request, context)
        return await self._fault(request, context)

    async def _right(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        return await super().Debit(request, context)

    async def _fault(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        """What is done instead; here nothing is wrong."""
        return await self._right(request, context)

    async def _pretend(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse | None:
        """The answer that the debit would have, if there is the credit."""
        asked = pb.GetBalanceRequest(account_id=request.account_id)
        view = await self.GetBalance(asked, context)
        entries = await self.ListEntries(
            pb.ListEntriesRequest(account_id=request.account_id, page_size=1, newest_first=True),
            context,
        )
        if view.balance.available < request.amount:
            return None
        view.balance.available -= request.amount
        view.balance.spent += request.amount
        entry_id = f"{int(entries.entries[0].entry_id, 16) + 1:016x}"
        return pb.DebitResponse(
            entry_id=entry_id,
            amount=request.amount,
            balance=view.balance,
            version=str(int(view.version) + 1),
        )


class LostUpdate(_Faulty):
    """Answers and does nothing."""

    async def _fault(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        return await self._pretend(request, context) or await self._right(request, context)


class LateUpdate(_Faulty):
    """Answers before it is done: what was asked afterwards may come before it."""

    async def _fault(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        answer = await self._pretend(request, context)
        if answer is None:
            return await self._right(request, context)
        self._later.add(asyncio.create_task(self._do_later(request, context)))
        return answer

    async def _do_later(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        await asyncio.sleep(0.02)
        return await self._right(request, context)


class DoubleApply(_Faulty):
    """Does it again under another request id."""

    async def _fault(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        answer = await self._right(request, context)
        again = pb.DebitRequest()
        again.CopyFrom(request)
        again.request_id += "again"
        await self._right(again, context)
        return answer


class WrongAmount(_Faulty):
    """Takes one less than was asked for."""

    async def _fault(self, request: pb.DebitRequest, context: object) -> pb.DebitResponse:
        less = pb.DebitRequest()
        less.CopyFrom(request)
        less.amount -= 1
        return await self._right(less, context)


class StaleRead(CreditServicer):
    """Now and then answers what it answered to an earlier read."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._reads = 0
        self._old: dict[str, pb.GetBalanceResponse] = {}

    async def GetBalance(  # noqa: N802 (the contract's name)
        self, request: pb.GetBalanceRequest, context: object
    ) -> pb.GetBalanceResponse:
        self._reads += 1
        answer = await super().GetBalance(request, context)
        if self._reads % 7:
            self._old[request.account_id] = answer
            return answer
        return self._old.get(request.account_id, answer)


FAULTS: list[Callable[[Ledger], CreditServicer]] = [
    LostUpdate,
    LateUpdate,
    DoubleApply,
    WrongAmount,
    StaleRead,
]
