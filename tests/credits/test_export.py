"""Which accounts there are, and their entries as a file."""

from __future__ import annotations

import json

import pytest
from tollmesh.credits.v1 import ledger_pb2 as pb

from services.credits import export
from services.credits.ledger_servicer import LedgerServicer
from services.rpc.call import Call
from services.store.errors import PageTokenInvalidError
from tests.support.credit_service import Account, CreditService


async def _export(
    servicer: LedgerServicer, request: pb.ExportEntriesRequest
) -> list[pb.ExportEntriesResponse]:
    return [part async for part in servicer.ExportEntries(request, Call("ExportEntries"))]


async def test_accounts_are_listed_once_in_pages(memory: CreditService, bob: Account) -> None:
    names = [f"account-{number:02}" for number in range(7)]
    for name in names:
        await bob.grant(1, account_id=name)
    servicer = LedgerServicer(memory.ledger, memory.store)
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListLedgerAccountsRequest(page_size=3, page_token=token)
        page = await servicer.ListLedgerAccounts(request, Call("ListLedgerAccounts"))
        found += page.account_ids
        token = page.next_page_token
        if not token:
            break
    assert found == names


async def test_an_export_goes_on_behind_any_of_its_cursors(
    memory: CreditService, bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PART", 3)
    for _ in range(5):
        await bob.grant(1)
        await bob.grant(1, account_id="carol")
    servicer = LedgerServicer(memory.ledger, memory.store)
    whole = await _export(servicer, pb.ExportEntriesRequest())
    everything = b"".join(part.data for part in whole)
    lines = [json.loads(line) for line in everything.splitlines()]
    assert len(lines) == sum(part.entries for part in whole) == 10
    assert [line["accountId"] for line in lines] == ["bob"] * 5 + ["carol"] * 5
    done = b""
    for part in whole:
        done += part.data
        rest = await _export(servicer, pb.ExportEntriesRequest(cursor=part.cursor))
        assert done + b"".join(later.data for later in rest) == everything
    with pytest.raises(PageTokenInvalidError):
        await _export(servicer, pb.ExportEntriesRequest(account_id="bob", cursor=whole[0].cursor))
