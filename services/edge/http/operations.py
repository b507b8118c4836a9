"""What is done to the cache on purpose: warming, purging, banning."""

from __future__ import annotations

from datetime import UTC, datetime

from services.edge.admission import ADMIN, DOWNLOAD, Actions, Admission, Caller
from services.edge.bans import Ban
from services.edge.http.conditions import not_modified, refuse_if_match
from services.edge.http.exchange import Exchange
from services.edge.http.problems import PreconditionFailedError
from services.edge.http.routes import Routes
from services.edge.objects import ObjectKey
from services.edge.operations import Operations
from services.edge.pages import page_of
from services.rpc.errors import InvalidArgumentError

_LONGEST_REASON = 500


class OperationHandlers:
    """Handlers of what operators do to the cache, and of what warms it.

    Args:
        admission: who may.
        operations: does it.
    """

    def __init__(self, admission: Admission, operations: Operations) -> None:
        self._admission = admission
        self._operations = operations

    async def warm(self, exchange: Exchange, network: str, cid: str) -> None:
        """``POST /objects/{network}/{cid}/warm``: brings an object into the cache."""
        caller = await self._authorize(exchange, DOWNLOAD, f"{network}/{cid}")
        refuse_if_match(exchange.headers)
        with self._admission.slot(caller):
            warmed = await self._operations.warm(caller, ObjectKey.parse(network, cid))
        await exchange.respond_json(
            200,
            {
                "network": network,
                "cid": cid,
                "size_bytes": warmed.info.size_bytes,
                "cached": warmed.cached,
                "amount": warmed.receipt.amount,
                "currency": warmed.receipt.currency,
            },
        )

    async def purge(self, exchange: Exchange, network: str, cid: str) -> None:
        """``DELETE /objects/{network}/{cid}``: drops an object; ``?force`` also a pinned one."""
        key = await self._administrated(exchange, network, cid)
        if not_modified(exchange.headers, cid):
            raise PreconditionFailedError
        found = await self._operations.purge(key, force="force" in exchange.query)
        await exchange.respond_json(200, {"network": network, "cid": cid, "found": found})

    async def put_ban(self, exchange: Exchange, network: str, cid: str) -> None:
        """``PUT /bans/{network}/{cid}``: 201 when it was not banned before, else 200."""
        key = await self._administrated(exchange, network, cid)
        refuse_if_match(exchange.headers)
        reason = exchange.query.get("reason", "")
        if len(reason) > _LONGEST_REASON:
            raise InvalidArgumentError(f"A reason has at most {_LONGEST_REASON} characters.")
        ban, is_new = await self._operations.ban(key, reason)
        await exchange.respond_json(201 if is_new else 200, _document(ban))

    async def get_ban(self, exchange: Exchange, network: str, cid: str) -> None:
        """``GET /bans/{network}/{cid}``."""
        key = await self._administrated(exchange, network, cid)
        await exchange.respond_json(200, _document(self._operations.bans.find(key)))

    async def delete_ban(self, exchange: Exchange, network: str, cid: str) -> None:
        """``DELETE /bans/{network}/{cid}``."""
        key = await self._administrated(exchange, network, cid)
        refuse_if_match(exchange.headers)
        await self._operations.lift(key)
        await exchange.respond(204, [])

    async def get_bans(self, exchange: Exchange) -> None:
        """``GET /bans``: a page of them, the oldest first."""
        await self._authorize(exchange, ADMIN, "bans")
        found, next_page_token = page_of(exchange.query, self._operations.bans.all())
        bans = [_document(ban) for ban in found]
        await exchange.respond_json(200, {"bans": bans, "next_page_token": next_page_token})

    async def _administrated(self, exchange: Exchange, network: str, cid: str) -> ObjectKey:
        await self._authorize(exchange, ADMIN, f"{network}/{cid}")
        return ObjectKey.parse(network, cid)

    async def _authorize(self, exchange: Exchange, actions: Actions, resource: str) -> Caller:
        caller = await self._admission.authorize(exchange.client, actions, resource)
        exchange.log_fields["account_id"] = caller.account_id
        return caller


def add_operations(routes: Routes, admission: Admission, operations: Operations) -> None:
    """Adds the routes of these handlers."""
    handlers = OperationHandlers(admission, operations)
    routes.add("POST", "/objects/{network}/{cid}/warm", handlers.warm)
    routes.add("DELETE", "/objects/{network}/{cid}", handlers.purge)
    routes.add("GET HEAD", "/bans", handlers.get_bans)
    routes.add("GET HEAD", "/bans/{network}/{cid}", handlers.get_ban)
    routes.add("PUT", "/bans/{network}/{cid}", handlers.put_ban)
    routes.add("DELETE", "/bans/{network}/{cid}", handlers.delete_ban)


def _document(ban: Ban) -> dict[str, object]:
    return {
        "network": ban.key.network,
        "cid": ban.key.cid,
        "reason": ban.reason,
        "create_time": moment(ban.time_s),
    }


def moment(time_s: float) -> str:
    """A Unix time as RFC 3339 has it, to the millisecond."""
    text = datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
