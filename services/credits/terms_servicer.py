"""The part of the ledger contract that is about terms of accounts."""

from __future__ import annotations

from tollmesh.credits.v1 import ledger_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2_grpc as pb_grpc

from services.credits.debits import DEFAULT_CURRENCY
from services.credits.ledger import Ledger
from services.credits.messages import version_number
from services.credits.terms import SetTerms
from services.rpc.call import Call
from services.store.requests import fingerprint


class TermsServicer(pb_grpc.LedgerServiceServicer):
    """Sets and tells terms."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def SetAccountTerms(
        self, request: pb.SetAccountTermsRequest, context: object
    ) -> pb.SetAccountTermsResponse:
        """Changes terms."""
        applied = await self._ledger.set_terms(_to_set_terms(request))
        answer = applied.answer
        Call.of(context).note(currency=answer.currency, replayed=applied.replayed)
        return pb.SetAccountTermsResponse(
            terms=pb.AccountTerms(
                account_id=request.account_id,
                currency=answer.currency,
                overdraft_limit=answer.overdraft_limit,
                shadow=answer.shadow,
            ),
            version=str(applied.version),
            replayed=applied.replayed,
        )

    async def GetAccountTerms(
        self, request: pb.GetAccountTermsRequest, context: object
    ) -> pb.GetAccountTermsResponse:
        """The terms in one currency."""
        del context
        currency = request.currency or DEFAULT_CURRENCY
        at_least = version_number(request.at_least_version)
        view = await self._ledger.terms(request.account_id, currency, at_least)
        return pb.GetAccountTermsResponse(
            terms=pb.AccountTerms(
                account_id=request.account_id,
                currency=currency,
                overdraft_limit=view.overdraft_limit,
                shadow=view.shadow,
            ),
            version=str(view.version),
        )


def _to_set_terms(request: pb.SetAccountTermsRequest) -> SetTerms:
    return SetTerms(
        request.account_id,
        request.currency or DEFAULT_CURRENCY,
        request.overdraft_limit if request.HasField("overdraft_limit") else None,
        request.shadow if request.HasField("shadow") else None,
        request.request_id,
        fingerprint("SetAccountTerms", request.SerializeToString(deterministic=True)),
    )
