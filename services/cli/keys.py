"""``tollmesh key``: make API keys, list them, revoke them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from tollmesh.auth.v1 import auth_pb2 as pb

from services.cli import output
from services.cli.connection import described, new_request_id, with_accounts
from services.cli.failure import MISUSED, CommandError
from services.cli.options import Expires, Json, RequestId, moment, shown

if TYPE_CHECKING:
    from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceAsyncStub

app = typer.Typer(no_args_is_help=True, help="Make API keys, list them, revoke them.")

Account = Annotated[
    str | None, typer.Argument(help="The account's id; the local mesh's own unless given.")
]
SCOPES = ("download", "upload", "pin", "read")


@app.command()
def create(
    account: Account = None,
    scope: Annotated[
        list[str], typer.Option(help="download, upload, pin, read or admin; may be repeated.")
    ] = list(SCOPES),  # noqa: B006 (typer copies it)
    name: Annotated[str, typer.Option(help="A name for people.")] = "",
    expires: Expires = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Make a key. It is shown this once."""
    request = pb.CreateApiKeyRequest(
        request_id=request_id or new_request_id(),
        account_id=account or described("account"),
        display_name=name,
        scopes=[_scope(text) for text in scope],
        expire_time=moment(expires) if expires else None,
    )
    answer = with_accounts(lambda accounts: accounts.CreateApiKey(request))
    if json:
        output.as_json(answer)
        return
    _table("Key", [answer.api_key])
    if answer.credential:
        output.console.print(f"Keep it now, it is not shown again:\n{answer.credential}")
    else:
        output.console.print("This request id made the key before; its secret is not kept.")


@app.command("list")
def list_(account: Account = None, json: Json = False) -> None:
    """List an account's keys, oldest first, revoked ones included."""
    account_id = account or described("account")

    async def collect(accounts: AccountServiceAsyncStub) -> list[pb.ApiKey]:
        found: list[pb.ApiKey] = []
        token = ""
        while True:
            request = pb.ListApiKeysRequest(account_id=account_id, page_token=token)
            page = await accounts.ListApiKeys(request)
            found.extend(page.api_keys)
            token = page.next_page_token
            if not token:
                return found

    found = with_accounts(collect)
    output.as_json(pb.ListApiKeysResponse(api_keys=found)) if json else _table("Keys", found)


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id (not the key).")],
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Revoke a key, for good."""
    request = pb.RevokeApiKeyRequest(request_id=request_id or new_request_id(), key_id=key)
    answer = with_accounts(lambda accounts: accounts.RevokeApiKey(request))
    output.as_json(answer) if json else _table("Key", [answer.api_key])


def _scope(text: str) -> pb.Scope.ValueType:
    try:
        return pb.Scope.Value(f"SCOPE_{text.upper()}")
    except ValueError:
        message = f"{text!r} is no scope: choose from {', '.join(SCOPES)}, admin"
        raise CommandError(message, MISUSED) from None


def _table(title: str, keys: list[pb.ApiKey]) -> None:
    rows = [
        (
            key.key_id,
            key.display_name,
            ", ".join(output.short_name(pb.Scope.Name(scope), "SCOPE_") for scope in key.scopes),
            shown(key.expire_time, present=key.HasField("expire_time")),
            shown(key.revoke_time, present=key.HasField("revoke_time"), absent="no"),
        )
        for key in keys
    ]
    output.table(title, ("key id", "name", "scopes", "expires", "revoked"), rows)
