"""REDbot finds nothing wrong with what comes through the edge from an origin."""

from __future__ import annotations

import pytest

from tests.edge.origins.conftest import Fronted
from tests.support.http_origin import answer
from tests.support.redbot import errors, judged

MODIFIED = "Mon, 02 Nov 2026 10:00:00 GMT"
CACHEABLE = {"etag": '"one"', "last_modified": MODIFIED, "cache_control": "max-age=600"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/stored", CACHEABLE),
        ("/unstored", {"cache_control": "no-store"}),
        ("/validated", {"etag": '"two"', "cache_control": "no-cache"}),
    ],
)
async def test_redbot_finds_no_error(fronted: Fronted, path: str, fields: dict[str, str]) -> None:
    fronted.origin.on(path, answer(200, b"Hello.\n" * 500, content_type="text/plain", **fields))
    findings = await judged(f"{fronted.edge.url}/origins/site{path}")
    assert errors(findings) == []
