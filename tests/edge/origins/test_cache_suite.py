"""The public suite for HTTP caches: the score is held, and failures are named."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.edge.conftest import World
from tests.support.cache_suite import run_suite, suite_origin

LEAST_PASSES = 205
MOST_REQUIRED_FAILURES = 15


@pytest.mark.timeout(400)
async def test_the_public_suite_is_passed_as_far_as_promised(
    world: World, http_suite: Path, http_test: str, capsys: pytest.CaptureFixture[str]
) -> None:
    sponsor = await world.tenant()
    async with suite_origin(http_suite) as url:
        options = {
            "url": url,
            "sponsor": sponsor.account_id,
            "authorization": True,
            "cookies": True,
            "rewrite_locations": False,
        }
        async with world.edge(origins={"suite": options}) as edge:
            score = await run_suite(f"{edge.url}/origins/suite", http_suite, http_test)
    with capsys.disabled():
        sys.stdout.write(f"\n{score}\n")
    if http_test:
        return
    assert score.passes >= LEAST_PASSES, score
    assert len(score.required_failures) <= MOST_REQUIRED_FAILURES, score
