"""``tollmesh credit``: what is taken back, given back, held, and allowed."""

from __future__ import annotations

from typing import Annotated

import typer
from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from services.cli import output
from services.cli.connection import described, new_request_id, with_credits, with_ledger
from services.cli.credit import Account, Currency, balance_table
from services.cli.options import Json, Limit, RequestId, shown

app = typer.Typer(no_args_is_help=True, help="Correct an account's credit, and set its terms.")

Why = Annotated[str, typer.Option(help="A note for the ledger.")]


@app.command()
def void(
    grant_id: Annotated[str, typer.Argument(help="The grant, as 'balance' names it.")],
    account: Account = None,
    why: Why = "",
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Take back what is unspent of a grant, and end its refills."""
    request = pb.VoidGrantRequest(
        request_id=request_id or new_request_id(),
        account_id=account or described("account"),
        grant_id=grant_id,
        resource=why,
    )
    answer = with_credits(lambda credits: credits.VoidGrant(request))
    output.as_json(answer) if json else balance_table(answer.balance)


@app.command()
def refund(
    entry_id: Annotated[str, typer.Argument(help="The debit or capture, as 'ledger' names it.")],
    amount: Annotated[int, typer.Option(min=0, help="How much; 0: all that is left.")] = 0,
    account: Account = None,
    why: Why = "",
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Give back a debit or capture, in part or whole."""
    request = pb.RefundRequest(
        request_id=request_id or new_request_id(),
        account_id=account or described("account"),
        entry_id=entry_id.zfill(16),
        amount=amount,
        resource=why,
    )
    answer = with_credits(lambda credits: credits.Refund(request))
    output.as_json(answer) if json else balance_table(answer.balance)


@app.command()
def terms(
    account: Account = None,
    currency: Currency = "credit",
    overdraft_limit: Annotated[
        int | None, typer.Option(min=0, help="How far debits may go below zero.")
    ] = None,
    shadow: Annotated[
        bool | None, typer.Option(help="Refuse nothing, and record what was not there.")
    ] = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Show what an account is allowed, or change it."""
    account_id = account or described("account")
    if overdraft_limit is None and shadow is None:
        asked = ledger_pb2.GetAccountTermsRequest(account_id=account_id, currency=currency)
        found = with_ledger(lambda ledger: ledger.GetAccountTerms(asked)).terms
    else:
        request = ledger_pb2.SetAccountTermsRequest(
            request_id=request_id or new_request_id(),
            account_id=account_id,
            currency=currency,
            overdraft_limit=overdraft_limit,
            shadow=shadow,
        )
        found = with_ledger(lambda ledger: ledger.SetAccountTerms(request)).terms
    if json:
        output.as_json(found)
        return
    row = (found.account_id, found.currency, found.overdraft_limit, "on" if found.shadow else "off")
    output.table("Terms", ("account", "currency", "overdraft limit", "shadow mode"), [row])


@app.command()
def holds(account: Account = None, limit: Limit = 100, json: Json = False) -> None:
    """List the open holds and leases of an account, what expires first coming first."""
    request = pb.ListHoldsRequest(
        account_id=account or described("account"), page_size=min(limit, 1000)
    )
    answer = with_credits(lambda credits: credits.ListHolds(request))
    if json:
        output.as_json(answer)
        return
    rows = [
        (
            hold.hold_id,
            hold.currency,
            hold.amount,
            hold.captured,
            hold.remaining,
            shown(hold.expire_time),
            hold.owner,
            output.short_cids(hold.resource),
        )
        for hold in answer.holds
    ]
    columns = ("hold", "currency", "amount", "captured", "remaining", "expires", "owner", "for")
    output.table("Open holds", columns, rows)
