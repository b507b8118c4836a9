"""schemathesis asks whatever the OpenAPI description allows, and what it does not."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.edge.conftest import RunningEdge, Tenant, World, object_path
from tests.support.chain_process import made_objects

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
NOT_ASKED = "/door/captures"
"""Takes lines of JSON, which schemathesis cannot make."""
EXAMPLES = 10
LONGEST_S = 25


async def test_answers_are_as_they_are_described_whatever_is_asked(
    world: World, edge: RunningEdge, tenant: Tenant, seed: int, tmp_path: Path
) -> None:
    for data in made_objects(seed, [10, 5_000]).values():
        await edge.get(object_path(world.chain.add(data)), tenant)
    command = (
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{edge.url}/openapi.json"),
        *("--header", f"X-API-Key: {tenant.key}", "--checks", ",".join(CHECKS)),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
        *("--max-time", str(LONGEST_S), "--request-timeout", "20", "--seed", str(seed)),
        *("--exclude-path", NOT_ASKED, "--continue-on-failure", "--no-color", "--no-shrink"),
        *("--generation-database", ":memory:", "--warnings", "off"),
    )
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=tmp_path,  # it writes beside itself
        env=os.environ | {"PYTHONWARNINGS": "ignore"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    print(output.decode())  # noqa: T201 (what was found)
    assert process.returncode == 0, "see its report above"
