"""Describes ``services.edge.http.downloads``."""

from __future__ import annotations

from services.edge.http.descriptions.parts import (
    KEYED,
    REFUSALS,
    UNAVAILABLE,
    Json,
    Paths,
    answer,
    parameters,
    problems,
)

_VALIDATORS = ("ETag", "Cache-Control", "Vary")
_REPRESENTATION = (
    *_VALIDATORS,
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Length",
    "Repr-Digest",
    "Content-Digest",
)
_METERED = ("Age", "Cache-Status", "Tollmesh-Cost", "Tollmesh-Currency", "Tollmesh-Available")
_BYTES: Json = {"*/*": {"schema": {"type": "string", "format": "binary"}}}


def _download(operation_id: str, summary: str, *path_parameters: str) -> Json:
    return {
        "operationId": operation_id,
        "summary": summary,
        "tags": ["objects"],
        "parameters": parameters(
            *path_parameters,
            "download",
            "inline",
            "range",
            "if-range",
            "if-match",
            "if-none-match",
            "want-repr-digest",
            "want-content-digest",
        ),
        "responses": {
            "200": answer("The object.", _BYTES, *_REPRESENTATION, *_METERED),
            "206": answer(
                "The part asked for, or several (multipart/byteranges).",
                _BYTES,
                *_REPRESENTATION,
                *_METERED,
                "Content-Range",
            ),
            "304": answer("The caller has it already. Free.", None, *_VALIDATORS),
            **problems(
                *REFUSALS,
                *UNAVAILABLE,
                "CID_INVALID",
                "INSUFFICIENT_CREDIT",
                "NETWORK_NOT_FOUND",
                "OBJECT_BANNED",
                "OBJECT_NOT_FOUND",
                "RANGE_NOT_SATISFIABLE",
                "OBJECT_CORRUPT",
                "NETWORK_UNAVAILABLE",
                http_only={412: "If-Match names another object."},
            ),
        },
        **KEYED,
    }


PATHS: Paths = {
    "/objects/{network}/{cid}": {
        "get": _download("getObject", "An object; browsers show it.", "network", "cid")
    },
    "/file/{cid}": {
        "get": _download("getFile", "An object on the default network; browsers show it.", "cid")
    },
    "/downloads/{cid}": {
        "get": _download(
            "getDownload", "An object on the default network; browsers save it.", "cid"
        )
    },
}
