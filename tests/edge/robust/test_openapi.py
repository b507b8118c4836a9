"""The OpenAPI description says what there is: every route, and nothing besides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from services.edge.http.openapi import described
from services.edge.http.problems import STATUS
from tests.edge.conftest import RunningEdge, World


@pytest.fixture
async def edge(world: World) -> AsyncIterator[RunningEdge]:
    """An edge with everything that an edge may have."""
    async with world.edge(origins={"site": {"url": "http://127.0.0.1:9"}}) as edge:
        yield edge


def _routes(edge: RunningEdge) -> set[tuple[str, str]]:
    return set(edge.edge._application._routes)


async def _document(edge: RunningEdge) -> dict[str, Any]:
    answer = await edge.get("/openapi.json")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/openapi+json;version=3.1"
    return answer.json()


def _references(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for value in part.values():
            yield from _references(value)
    elif isinstance(part, list):
        for value in part:
            yield from _references(value)


async def test_every_route_is_described_and_nothing_else(edge: RunningEdge) -> None:
    routes, operations = _routes(edge), set(described())
    missing = {(method, path) for method, path in routes - operations if method != "HEAD"}
    missing |= {("GET", path) for method, path in routes if method == "HEAD"} - operations
    hint = "describe it in services/edge/http/descriptions and name that module in http/openapi.py"
    assert not missing, hint
    assert not operations - routes, "described, but there is no such route"
    served = {
        (method.upper(), path)
        for path, found in (await _document(edge))["paths"].items()
        for method in found
    }
    assert served == routes


async def test_the_document_is_whole(edge: RunningEdge) -> None:
    document = await _document(edge)
    for reference in set(_references(document)):
        part: Any = document
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
    operations = [
        (path, operation)
        for path, found in document["paths"].items()
        for operation in found.values()
    ]
    names = [operation["operationId"] for _, operation in operations]
    assert len(names) == len(set(names))
    for path, operation in operations:
        parameters = [
            document["components"]["parameters"][reference["$ref"].rpartition("/")[2]]
            if (reference := parameter).get("$ref")
            else parameter
            for parameter in operation.get("parameters", ())
        ]
        in_path = {found["name"] for found in parameters if found["in"] == "path"}
        assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
        assert {"400", "500"} <= set(operation["responses"])


async def test_every_status_of_a_reason_has_the_problem_schema(edge: RunningEdge) -> None:
    document = await _document(edge)
    reasons = document["components"]["schemas"]["Problem"]["properties"]["reason"]["enum"]
    assert len(reasons) == len(STATUS)
    for path, found in document["paths"].items():
        for status, response in found.get("get", {}).get("responses", {}).items():
            # Health has a document of its own, and some fronts drop bodies.
            if status >= "400" and status.isdigit() and "content" in response and path != "/readyz":
                assert "application/problem+json" in response["content"], (path, status)
