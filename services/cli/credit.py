"""``tollmesh grant``, ``balance`` and ``ledger``."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer
from tollmesh.credits.v1 import credits_pb2 as pb

from services.cli import output
from services.cli.connection import described, new_request_id, with_credits
from services.cli.failure import MISUSED, CommandError
from services.cli.options import Expires, Json, Limit, RequestId, moment, shown

if TYPE_CHECKING:
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub


class Period(StrEnum):
    """How often a grant is refilled."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


Account = Annotated[
    str | None, typer.Option(help="The account's id; the local mesh's own unless given.")
]
Currency = Annotated[str, typer.Option(help="The currency.")]


def grant(
    amount: Annotated[int, typer.Argument(min=1, help="How many credits.")],
    *,
    account: Account = None,
    currency: Currency = "credit",
    expires: Expires = None,
    priority: Annotated[int, typer.Option(help="Lower is spent first.")] = 0,
    resource: Annotated[str, typer.Option(help="A note for the ledger: an invoice, say.")] = "",
    every: Annotated[
        Period | None, typer.Option(help="Refill it each day, week, month or year.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="When the refills end: a time, as for --expires.")
    ] = None,
    rollover: Annotated[
        int, typer.Option(min=0, help="How much unspent credit goes into the next period.")
    ] = 0,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Add credit to an account, once or each period."""
    if every is None and (until or rollover):
        raise CommandError("--until and --rollover go with --every", MISUSED)
    request = pb.GrantRequest(
        request_id=request_id or new_request_id(),
        account_id=account or described("account"),
        currency=currency,
        amount=amount,
        priority=priority,
        expire_time=moment(expires) if expires else None,
        resource=resource,
    )
    if every is not None:
        request.recurrence.period = pb.RefillPeriod.Value(f"REFILL_PERIOD_{every.name}")
        request.recurrence.max_rollover = rollover
        if until:
            request.recurrence.end_time.CopyFrom(moment(until))
    answer = with_credits(lambda credits: credits.Grant(request))
    output.as_json(answer) if json else balance_table(answer.balance)


def balance(account: Account = None, currency: Currency = "credit", json: Json = False) -> None:
    """Show what an account has, and its grants in the order in which they are spent."""
    request = pb.GetBalanceRequest(account_id=account or described("account"), currency=currency)
    answer = with_credits(lambda credits: credits.GetBalance(request))
    if json:
        output.as_json(answer)
        return
    balance_table(answer.balance)
    rows = [
        (
            grant.grant_id,
            grant.amount,
            grant.remaining,
            grant.priority,
            shown(grant.expire_time, present=grant.HasField("expire_time")),
            shown(grant.next_refill_time, present=grant.HasField("next_refill_time")),
        )
        for grant in answer.grants
    ]
    columns = ("grant", "amount", "remaining", "priority", "expires", "refilled")
    output.table("Grants", columns, rows)


def ledger(
    account: Account = None,
    newest_first: Annotated[bool, typer.Option(help="Newest first.")] = False,
    limit: Limit = 100,
    json: Json = False,
) -> None:
    """List what happened to an account's credit."""
    account_id = account or described("account")

    async def collect(credits: CreditServiceAsyncStub) -> list[pb.Entry]:
        found: list[pb.Entry] = []
        token = ""
        while len(found) < limit:
            request = pb.ListEntriesRequest(
                account_id=account_id,
                page_size=min(limit - len(found), 1000),
                page_token=token,
                newest_first=newest_first,
            )
            page = await credits.ListEntries(request)
            found.extend(page.entries)
            token = page.next_page_token
            if not token:
                break
        return found

    found = with_credits(collect)
    if json:
        output.as_json(pb.ListEntriesResponse(entries=found))
    else:
        ledger_table(found)


def balance_table(balance: pb.Balance) -> None:
    """Prints a balance for people."""
    columns = ("account", "currency", "available", "held", "granted", "spent", "expired", "voided")
    row = (
        balance.account_id,
        balance.currency,
        balance.available,
        balance.held,
        balance.granted,
        balance.spent,
        balance.expired,
        balance.voided,
    )
    output.table("Balance", columns, [row])


def ledger_table(entries: list[pb.Entry]) -> None:
    """Prints ledger entries for people."""
    rows = [
        (
            entry.entry_id.lstrip("0"),
            f"{entry.create_time.ToDatetime():%H:%M:%S}",
            output.short_name(pb.EntryKind.Name(entry.kind), "ENTRY_KIND_"),
            entry.amount,
            entry.available_after,
            entry.held_after,
            _metered(entry),
            output.short_cids(entry.resource),
        )
        for entry in entries
    ]
    columns = ("entry", "time", "kind", "amount", "available", "held", "metered", "for")
    output.table("Ledger", columns, rows)


def _metered(entry: pb.Entry) -> str:
    if not entry.HasField("metered"):
        return ""
    metered = entry.metered
    result = output.short_name(pb.CacheResult.Name(metered.cache_result), "CACHE_RESULT_")
    suffix = "" if metered.cache_result == pb.CACHE_RESULT_UNSPECIFIED else f" {result}"
    return f"{metered.meter}{suffix} {metered.quantity:,}"
