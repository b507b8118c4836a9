"""``tollmesh account``: make accounts, list them, suspend and close them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import typer
from tollmesh.auth.v1 import auth_pb2 as pb

from services.cli import output
from services.cli.connection import new_request_id, with_accounts
from services.cli.options import Json, Limit, RequestId, shown

if TYPE_CHECKING:
    from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceAsyncStub

app = typer.Typer(no_args_is_help=True, help="Make accounts, list them, suspend and close them.")

AccountId = Annotated[str, typer.Argument(help="The account's id, acc_...")]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Make an account."""
    request = pb.CreateAccountRequest(request_id=request_id or new_request_id(), display_name=name)
    answer = with_accounts(lambda accounts: accounts.CreateAccount(request))
    if json:
        output.as_json(answer)
        return
    _table("Account", [answer.account])
    for notice in answer.notices:
        output.console.print(f"[yellow]Note:[/yellow] {notice.message}")


@app.command("list")
def list_(limit: Limit = 100, json: Json = False) -> None:
    """List accounts, oldest first."""

    async def collect(accounts: AccountServiceAsyncStub) -> list[pb.Account]:
        return [account async for account in _pages(accounts, limit)]

    found = with_accounts(collect)
    if json:
        output.as_json(pb.ListAccountsResponse(accounts=found))
    else:
        _table("Accounts", found)


@app.command()
def show(account: AccountId, json: Json = False) -> None:
    """Show one account."""
    request = pb.GetAccountRequest(account_id=account)
    answer = with_accounts(lambda accounts: accounts.GetAccount(request))
    output.as_json(answer) if json else _table("Account", [answer.account])


@app.command()
def suspend(account: AccountId, request_id: RequestId = None, json: Json = False) -> None:
    """Refuse the account's keys until it is reactivated."""
    _set_state(account, pb.ACCOUNT_STATE_SUSPENDED, request_id, json=json)


@app.command()
def reactivate(account: AccountId, request_id: RequestId = None, json: Json = False) -> None:
    """Accept the keys of a suspended account again."""
    _set_state(account, pb.ACCOUNT_STATE_ACTIVE, request_id, json=json)


@app.command()
def close(account: AccountId, request_id: RequestId = None, json: Json = False) -> None:
    """Close an account, for good."""
    _set_state(account, pb.ACCOUNT_STATE_CLOSED, request_id, json=json)


def _set_state(
    account: str, state: pb.AccountState.ValueType, request_id: str | None, *, json: bool
) -> None:
    request = pb.SetAccountStateRequest(
        request_id=request_id or new_request_id(), account_id=account, state=state
    )
    answer = with_accounts(lambda accounts: accounts.SetAccountState(request))
    output.as_json(answer) if json else _table("Account", [answer.account])


async def _pages(accounts: AccountServiceAsyncStub, limit: int) -> AsyncIterator[pb.Account]:
    token, left = "", limit
    while left > 0:
        request = pb.ListAccountsRequest(page_size=min(left, 1000), page_token=token)
        page = await accounts.ListAccounts(request)
        for account in page.accounts:
            yield account
        left, token = left - len(page.accounts), page.next_page_token
        if not token:
            return


def _table(title: str, accounts: list[pb.Account]) -> None:
    rows = [
        (
            account.account_id,
            account.display_name,
            output.short_name(pb.AccountState.Name(account.state), "ACCOUNT_STATE_"),
            shown(account.create_time),
        )
        for account in accounts
    ]
    output.table(title, ("account", "name", "state", "created"), rows)
