"""The ledger contract: terms of accounts, and which accounts and entries there are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from tollmesh.credits.v1 import ledger_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2_grpc as pb_grpc

from services.credits import export
from services.credits.audit import Audit, Progress
from services.credits.debits import DEFAULT_CURRENCY
from services.credits.export_csv import csv_line, header
from services.credits.ledger import Ledger
from services.credits.messages import entry_message, moment_us, version_number
from services.credits.records import MAX_AMOUNT
from services.credits.terms import SetTerms
from services.rpc.call import Call
from services.store.port import Store
from services.store.requests import fingerprint


class LedgerServicer(pb_grpc.LedgerServiceServicer):
    """What its operator asks of the ledger."""

    def __init__(self, ledger: Ledger, store: Store) -> None:
        self._ledger = ledger
        self._store = store

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

    async def ListLedgerAccounts(
        self, request: pb.ListLedgerAccountsRequest, context: object
    ) -> pb.ListLedgerAccountsResponse:
        """A page of accounts; it may be shorter than asked when wallets are large."""
        del context
        size = request.page_size or export.PAGE
        run = partial(export.accounts, token=request.page_token)
        read = await export.bounded_read(self._store, run, size)
        account_ids, token = read.result
        return pb.ListLedgerAccountsResponse(
            account_ids=account_ids, next_page_token=token, version=str(read.version)
        )

    async def ExportEntries(
        self, request: pb.ExportEntriesRequest, context: object
    ) -> AsyncIterator[pb.ExportEntriesResponse]:
        """Entries as JSON Lines or CSV, a part a message; CSV begins with its header."""
        as_csv = request.format == pb.EXPORT_FORMAT_CSV
        line, head = (csv_line, header()) if as_csv else (export.json_line, b"")
        start_us, end_us = 0, MAX_AMOUNT
        if request.HasField("start_time"):
            start_us = moment_us(request.start_time, "start_time")
        if request.HasField("end_time"):
            end_us = moment_us(request.end_time, "end_time")
        cursor, more, total = request.cursor, True, 0
        head = b"" if cursor else head
        while more:
            run = partial(export.entries, account_id=request.account_id, cursor=cursor)
            found, cursor, more = (await export.bounded_read(self._store, run, export.PART)).result
            lines = [
                line(entry_message(account_id, number, entry))
                for account_id, number, entry in found
                if start_us <= entry.create_us < end_us
            ]
            total += len(lines)
            data = head + b"".join(lines)
            yield pb.ExportEntriesResponse(data=data, cursor=cursor, entries=len(lines))
            head = b""
        Call.of(context).note(entries=total)

    async def Audit(
        self, request: pb.AuditRequest, context: object
    ) -> AsyncIterator[pb.AuditResponse]:
        """How far the proof has come, and in the end its result."""
        async for progress in Audit(self._store, request.account_id, request.cursor).run():
            yield _audit_message(progress)
            if progress.done or progress.difference is not None:
                Call.of(context).note(entries=progress.entries, right=progress.done)


def _audit_message(progress: Progress) -> pb.AuditResponse:
    message = pb.AuditResponse(
        accounts=progress.accounts,
        entries=progress.entries,
        cursor=progress.cursor,
        done=progress.done,
    )
    if (difference := progress.difference) is not None:
        message.difference.CopyFrom(
            pb.Difference(
                account_id=difference.account_id,
                entry_id=difference.entry_id,
                field=difference.field,
                expected=difference.expected,
                found=difference.found,
                message=str(difference),
            )
        )
    return message


def _to_set_terms(request: pb.SetAccountTermsRequest) -> SetTerms:
    return SetTerms(
        request.account_id,
        request.currency or DEFAULT_CURRENCY,
        request.overdraft_limit if request.HasField("overdraft_limit") else None,
        request.shadow if request.HasField("shadow") else None,
        request.request_id,
        fingerprint("SetAccountTerms", request.SerializeToString(deterministic=True)),
    )
