"""Which accounts there are, and their entries as a file."""

from __future__ import annotations

import csv
import json
from io import StringIO

import pytest
from tollmesh.credits.v1 import ledger_pb2 as pb

from services.credits import export, export_csv
from services.credits.ledger_servicer import LedgerServicer
from services.rpc.call import Call
from services.store.errors import PageTokenInvalidError
from tests.support.credit_service import Account, CreditService, metered


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


async def test_csv_has_a_header_once_and_a_row_for_each_entry(
    memory: CreditService, bob: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "PART", 3)
    await bob.grant(1000, resource='an "invoice", in\nlines')
    await bob.debit(metered=metered("download", 1024, "HIT"), resource="=1+1", request_id="-r")
    for _ in range(5):
        await bob.debit(1)
    await bob.set_terms(overdraft_limit=10_000)
    await bob.debit(2000)
    servicer = LedgerServicer(memory.ledger, memory.store)
    request = pb.ExportEntriesRequest(format=pb.EXPORT_FORMAT_CSV)
    parts = await _export(servicer, request)
    text = b"".join(part.data for part in parts).decode()
    header, *rows = csv.reader(StringIO(text, newline=""))
    assert header == list(export_csv.COLUMNS)
    assert len(rows) == sum(part.entries for part in parts) == len(await bob.entries())
    granted, metered_row = (dict(zip(header, row, strict=True)) for row in rows[:2])
    assert granted["kind"] == "ENTRY_KIND_GRANT"
    assert granted["resource"] == 'an "invoice", in\nlines'
    assert (granted["meter"], granted["quantity"]) == ("", "")
    assert granted["create_time"] == "2027-01-15T08:00:00Z"
    assert (metered_row["meter"], metered_row["quantity"]) == ("download", "1024")
    assert (metered_row["resource"], metered_row["request_id"]) == ("'=1+1", "-r")
    assert int(rows[-1][header.index("available_after")]) < 0
    assert text.endswith("\r\n")
    done = b""
    for part in parts:
        done += part.data
        rest = await _export(
            servicer, pb.ExportEntriesRequest(format=pb.EXPORT_FORMAT_CSV, cursor=part.cursor)
        )
        assert (done + b"".join(later.data for later in rest)).decode() == text


async def test_an_empty_ledger_is_a_header_alone(memory: CreditService) -> None:
    servicer = LedgerServicer(memory.ledger, memory.store)
    (part,) = await _export(servicer, pb.ExportEntriesRequest(format=pb.EXPORT_FORMAT_CSV))
    assert part.data == export_csv.header()


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\tx", "\rx", "'x", "''", "bafk", ""])
def test_no_text_of_a_caller_is_a_formula_and_none_is_lost(text: str) -> None:
    cell = export_csv.as_text(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'") == text
