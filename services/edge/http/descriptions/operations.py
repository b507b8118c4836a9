"""Describes ``services.edge.http.operations``, and the list of pins."""

from __future__ import annotations

from services.edge.http.descriptions.components import EXAMPLE_CID
from services.edge.http.descriptions.parts import (
    KEYED,
    REFUSALS,
    UNAVAILABLE,
    Json,
    Paths,
    answer,
    json_answer,
    parameters,
    problems,
)

_NAMED = {"network": "evm-local", "cid": EXAMPLE_CID}
_MOMENT = "2026-01-31T12:00:00.000Z"
_WARMED = {**_NAMED, "size_bytes": 1024, "cached": True, "amount": 2, "currency": "credit"}
_BAN = {**_NAMED, "reason": "By order of a court.", "create_time": _MOMENT}
_PIN = {
    **_NAMED,
    "size_bytes": 1024,
    "create_time": _MOMENT,
    "paid_until": "2026-03-02T12:00:00.000Z",
    "state": "paid",
    "end_time": "",
}
_ADMITTED = (*REFUSALS, "DEPENDENCY_UNAVAILABLE", "DEADLINE_EXCEEDED")
_PRECONDITION = {412: "A precondition does not hold."}
_NAMING = ("CID_INVALID", "NETWORK_NOT_FOUND")


def _operation(
    operation_id: str, summary: str, tag: str, asked: list[Json], responses: dict[str, Json]
) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": [tag],
        "parameters": asked,
        "responses": responses,
        **KEYED,
    }


def _query(name: str, description: str, schema: Json) -> Json:
    return {"in": "query", "name": name, "description": description, "schema": schema}


_PAGING = [
    _query(
        "page_size",
        "How many at most; 0 is 100.",
        {"type": "integer", "minimum": 0, "maximum": 1000},
    ),
    _query("page_token", "From an earlier page.", {"type": "string", "pattern": "^[0-9]*$"}),
]
_WARM = _operation(
    "postWarm",
    "Brings an object into the cache. Paid like a download that misses.",
    "objects",
    parameters("network", "cid"),
    {
        "200": json_answer("It is here, if cached says so.", "Warmed", _WARMED),
        **problems(
            *REFUSALS,
            *UNAVAILABLE,
            *_NAMING,
            "INSUFFICIENT_CREDIT",
            "NETWORK_UNAVAILABLE",
            "OBJECT_BANNED",
            "OBJECT_CORRUPT",
            "OBJECT_NOT_FOUND",
            http_only=_PRECONDITION,
        ),
    },
)
_PURGE = _operation(
    "deleteObject",
    "Drops an object from the cache. For operators.",
    "operations",
    [
        *parameters("network", "cid"),
        _query("force", "Also when it is pinned: it is fetched again then.", {"type": "string"}),
    ],
    {
        "200": json_answer("It is not in the cache.", "Purged", {**_NAMED, "found": True}),
        **problems(*_ADMITTED, *_NAMING, "OBJECT_PINNED", http_only=_PRECONDITION),
    },
)
_PUT_BAN = _operation(
    "putBan",
    "Has an object not be served here any more. For operators.",
    "operations",
    [
        *parameters("network", "cid"),
        _query(
            "reason",
            "Why, for those who ask for the object.",
            {"type": "string", "maxLength": 500},
        ),
    ],
    {
        "200": json_answer("It was banned already, and has this reason now.", "Ban", _BAN),
        "201": json_answer("It is banned now.", "Ban", _BAN),
        **problems(
            *_ADMITTED,
            *_NAMING,
            "STORE_UNAVAILABLE",
            http_only=_PRECONDITION,
        ),
    },
)
_GET_BAN = _operation(
    "getBan",
    "The ban of an object. For operators.",
    "operations",
    parameters("network", "cid"),
    {
        "200": json_answer("It is banned.", "Ban", _BAN),
        **problems(*_ADMITTED, *_NAMING, "BAN_NOT_FOUND"),
    },
)
_DELETE_BAN = _operation(
    "deleteBan",
    "Lets an object be served again. For operators.",
    "operations",
    parameters("network", "cid"),
    {
        "204": answer("It is not banned any more."),
        **problems(
            *_ADMITTED,
            *_NAMING,
            "BAN_NOT_FOUND",
            "STORE_UNAVAILABLE",
            http_only=_PRECONDITION,
        ),
    },
)
_BANS = _operation(
    "getBans",
    "The bans of this edge, the oldest first. For operators.",
    "operations",
    _PAGING,
    {
        "200": json_answer("The bans.", "Bans", {"bans": [_BAN], "next_page_token": ""}),
        **problems(*_ADMITTED, "PAGE_TOKEN_INVALID"),
    },
)
_PINS = _operation(
    "getPins",
    "The account's pins on this edge, the oldest first.",
    "pins",
    _PAGING,
    {
        "200": json_answer("The pins.", "Pins", {"pins": [_PIN], "next_page_token": ""}),
        **problems(*_ADMITTED, "PAGE_TOKEN_INVALID"),
    },
)

PATHS: Paths = {
    "/objects/{network}/{cid}/warm": {"post": _WARM},
    "/objects/{network}/{cid}": {"delete": _PURGE},
    "/bans": {"get": _BANS},
    "/bans/{network}/{cid}": {"get": _GET_BAN, "put": _PUT_BAN, "delete": _DELETE_BAN},
    "/pins": {"get": _PINS},
}
