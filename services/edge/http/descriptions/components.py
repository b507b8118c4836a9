"""The components that several descriptions share: parameters, headers, schemas, keys."""

from __future__ import annotations

from tollmesh.errors.v1 import errors_pb2 as reasons

from services.edge.http.descriptions.parts import CID_PATTERN, Json, ref

EXAMPLE_CID = "bafkr6igk6gk6f4shrnbnjw6rrh3hx2ypwnmbmxiyizb3fq6xtuhwlbuqre"
_NETWORK: Json = {"type": "string", "pattern": "^[a-z0-9][a-z0-9-]{0,31}$"}
_CID: Json = {"type": "string", "pattern": CID_PATTERN, "minLength": 59, "maxLength": 59}
_COUNT: Json = {"type": "integer", "minimum": 0}
_MOMENT: Json = {"type": "string", "format": "date-time"}
_STATES = ["pending", "published", "finalized", "failed"]


def _parameter(place: str, name: str, description: str, schema: Json, **more: object) -> Json:
    needed = {"required": True} if place == "path" else {}
    return {"in": place, "name": name, "description": description, "schema": schema} | needed | more


def _header(description: str, schema: Json | None = None, **more: object) -> Json:
    return {"description": description, "schema": schema or {"type": "string"}} | more


PARAMETERS: Json = {
    "network": _parameter(
        "path", "network", "A network of the chain service.", _NETWORK, example="evm-local"
    ),
    "cid": _parameter("path", "cid", "The object's content id.", _CID, example=EXAMPLE_CID),
    "range": _parameter(
        "header",
        "Range",
        "The part wanted, or up to 64 parts, by RFC 9110, section 14.",
        {"type": "string"},
        examples={
            "first": {"value": "bytes=0-1023"},
            "open": {"value": "bytes=1024-"},
            "suffix": {"value": "bytes=-500"},
            "several": {"value": "bytes=0-99,-100"},
        },
    ),
    "if-range": _parameter(
        "header", "If-Range", "Heed Range only for this ETag.", {"type": "string"}
    ),
    "if-match": _parameter(
        "header", "If-Match", "412 unless one of these ETags is the object's.", {"type": "string"}
    ),
    "if-none-match": _parameter(
        "header", "If-None-Match", "304 if one of these ETags is the object's.", {"type": "string"}
    ),
    "want-repr-digest": _parameter(
        "header",
        "Want-Repr-Digest",
        "`sha-256=0` for no Repr-Digest (RFC 9530).",
        {"type": "string"},
    ),
    "want-content-digest": _parameter(
        "header",
        "Want-Content-Digest",
        "`sha-256=1` for a Content-Digest of a short part (RFC 9530).",
        {"type": "string"},
    ),
    "tollmesh-front": _parameter(
        "header", "Tollmesh-Front", "This edge's secret.", {"type": "string"}, required=True
    ),
    "download": _parameter(
        "query", "download", "Browsers save the object.", {"type": "string"}, allowEmptyValue=True
    ),
    "inline": _parameter(
        "query", "inline", "Browsers show the object.", {"type": "string"}, allowEmptyValue=True
    ),
    "idempotency-key": _parameter(
        "header",
        "Idempotency-Key",
        "The account's own name for this request: a repetition is done and paid once.",
        {"type": "string", "pattern": "^[!-~]{1,255}$", "minLength": 1, "maxLength": 255},
        example="order-17",
    ),
}

HEADERS: Json = {
    "X-Request-Id": _header("Names the request in the logs of every service that took part."),
    "Accept-Ranges": _header("Always `bytes`."),
    "Age": _header("Since when nobody asked the network about it, in s; with hits.", _COUNT),
    "Allow": _header("The methods that this path takes."),
    "Cache-Control": _header("How long the answer may be kept, and by whom (RFC 9111)."),
    "Cache-Status": _header("What this edge's cache had to do with it (RFC 9211)."),
    "Content-Digest": _header("SHA-256 of the body, to who wants it (RFC 9530)."),
    "Content-Disposition": _header("Saved or shown, and under which name (RFC 6266)."),
    "Content-Length": _header("Bytes of the body.", _COUNT),
    "Content-Range": _header("The part sent, or `bytes */size` with 416."),
    "ETag": _header("The CID, as a strong validator.", example=f'"{EXAMPLE_CID}"'),
    "Location": _header("The path of the object that was made."),
    "Link": _header('Who has the object be banned (rel="blocked-by", RFC 7725).'),
    "Repr-Digest": _header("SHA-256 of the whole object, once it is here (RFC 9530)."),
    "Retry-After": _header("In how many seconds a repetition may help.", _COUNT),
    "Tollmesh-Account": _header("The account that pays."),
    "Tollmesh-Available": _header("What the account can spend besides, as far as is known."),
    "Tollmesh-Cost": _header("The price if all of the answer is sent."),
    "Tollmesh-Currency": _header("Of Tollmesh-Cost and Tollmesh-Available."),
    "Tollmesh-Problem": _header("The problem document, for fronts that drop bodies."),
    "Tollmesh-Status": _header("The status that the reader is to get."),
    "Tollmesh-Ticket": _header("What the delivery is reported under."),
    "Vary": _header("The request headers that the answer depends on."),
    "WWW-Authenticate": _header("How to present a key (RFC 6750)."),
}

SCHEMAS: Json = {
    "Problem": {
        "description": "An error (RFC 9457).",
        "type": "object",
        "required": ["type", "title", "status", "detail", "reason", "metadata"],
        "properties": {
            "type": {"type": "string", "pattern": "^urn:tollmesh:error:[A-Z_]+$"},
            "title": {"type": "string", "minLength": 1},
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": {"type": "string"},
            "reason": {
                "description": "The ErrorReason that gRPC callers get; see docs/errors.md.",
                "enum": sorted(
                    name.removeprefix("ERROR_REASON_")
                    for name, number in reasons.ErrorReason.items()
                    if number
                ),
            },
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
            "currency": {"type": "string", "description": "Of a 402."},
            "needed": {"type": "integer", "description": "Of a 402: what it would have taken."},
            "available": {"type": "integer", "description": "Of a 402: what there is."},
            "top_up_url": {"type": "string", "format": "uri", "description": "Of a 402."},
            "instance": {"type": "string", "pattern": "^urn:tollmesh:request:"},
            "violations": {"type": "object", "additionalProperties": {"type": "string"}},
        },
        "additionalProperties": False,
    },
    "Uploaded": {
        "description": "A file that was taken.",
        "type": "object",
        "required": ["network", "cid", "size_bytes", "state", "amount", "currency"],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "size_bytes": _COUNT,
            "state": {"enum": _STATES},
            "amount": {"description": "What was paid.", **_COUNT},
            "currency": {"type": "string"},
        },
        "additionalProperties": False,
    },
    "Reported": {
        "description": "What became of reports, in their order.",
        "type": "object",
        "required": ["outcomes"],
        "properties": {
            "outcomes": {
                "type": "array",
                "items": {
                    "description": "settled, repeated, late, unknown, nothing, malformed: why",
                    "type": "string",
                },
            }
        },
        "additionalProperties": False,
    },
    "Publication": {
        "description": "How far an upload has come.",
        "type": "object",
        "required": ["network", "cid", "state", "size_bytes", "update_time", "message"],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "state": {"enum": _STATES},
            "size_bytes": _COUNT,
            "nodes_total": _COUNT,
            "nodes_published": _COUNT,
            "nodes_finalized": _COUNT,
            "update_time": {
                "anyOf": [{"type": "string", "format": "date-time"}, {"const": ""}],
            },
            "message": {"type": "string"},
        },
        "additionalProperties": False,
    },
    "Pinned": {
        "description": "An object that this edge keeps.",
        "type": "object",
        "required": ["network", "cid", "size_bytes", "amount", "currency", "paid_until"],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "size_bytes": _COUNT,
            "amount": {"description": "What was paid for the first period.", **_COUNT},
            "currency": {"type": "string"},
            "paid_until": _MOMENT,
        },
        "additionalProperties": False,
    },
    "Pins": {
        "description": "The account's pins.",
        "type": "object",
        "required": ["pins", "next_page_token"],
        "properties": {
            "pins": {"type": "array", "items": ref("schemas", "Pin")},
            "next_page_token": {"description": "Empty on the last page.", "type": "string"},
        },
        "additionalProperties": False,
    },
    "Pin": {
        "description": "A pinned object, and how it is paid.",
        "type": "object",
        "required": [
            *("network", "cid", "size_bytes"),
            *("create_time", "paid_until", "state", "end_time"),
        ],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "size_bytes": _COUNT,
            "create_time": _MOMENT,
            "paid_until": _MOMENT,
            "state": {"enum": ["paid", "unpaid"]},
            "end_time": {
                "description": "When an unpaid pin ends; else empty.",
                "anyOf": [_MOMENT, {"const": ""}],
            },
        },
        "additionalProperties": False,
    },
    "Warmed": {
        "description": "An object that was to be brought in.",
        "type": "object",
        "required": ["network", "cid", "size_bytes", "cached", "amount", "currency"],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "size_bytes": _COUNT,
            "cached": {"type": "boolean"},
            "amount": {"description": "What was paid.", **_COUNT},
            "currency": {"type": "string"},
        },
        "additionalProperties": False,
    },
    "Purged": {
        "description": "An object that was dropped.",
        "type": "object",
        "required": ["network", "cid", "found"],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "found": {"description": "Whether it was there.", "type": "boolean"},
        },
        "additionalProperties": False,
    },
    "Bans": {
        "description": "What is not served here.",
        "type": "object",
        "required": ["bans", "next_page_token"],
        "properties": {
            "bans": {"type": "array", "items": ref("schemas", "Ban")},
            "next_page_token": {"description": "Empty on the last page.", "type": "string"},
        },
        "additionalProperties": False,
    },
    "Ban": {
        "description": "An object that is not served here.",
        "type": "object",
        "required": ["network", "cid", "reason", "create_time"],
        "properties": {
            "network": _NETWORK,
            "cid": _CID,
            "reason": {"type": "string"},
            "create_time": _MOMENT,
        },
        "additionalProperties": False,
    },
    "Health": {
        "type": "object",
        "required": ["status"],
        "properties": {"status": {"enum": ["alive", "ready", "draining"]}},
        "additionalProperties": False,
    },
}

SECURITY_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "`Authorization: Bearer tm_...`",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`tm_...`"},
}
