"""docs/failures.md says what the services really say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tollmesh.errors.v1 import errors_pb2

from services.credits.settings import CreditSettings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failures.md").read_text()
SOURCES = "\n".join(path.read_text() for path in sorted((ROOT / "services").rglob("*.py")))
PLAIN = re.sub(r'"\s*\n\s*f?"', "", SOURCES)
"""The sources with their long texts in one piece."""
STATUSES = {"UNAVAILABLE", "DEADLINE_EXCEEDED", "EXPIRE_GRANT", "DIRECTORY"}


def test_each_log_event_of_the_page_is_one_that_services_write() -> None:
    events = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", PAGE)) - {"request_id"}
    assert len(events) >= 6
    written = set(re.findall(r'log\.(?:\w+)\(\s*(?:#.*\n\s*)?"(\w+)"', SOURCES))
    assert events <= written


def test_each_reason_of_the_page_is_one_of_the_contract() -> None:
    named = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)*)`", PAGE)) - STATUSES
    names = {name for name in named if not name.startswith("TOLLMESH_")}
    reasons = {name.removeprefix("ERROR_REASON_") for name, _ in errors_pb2.ErrorReason.items()}
    assert {"STORE_UNAVAILABLE", "OVERLOADED", "INTERNAL"} <= names
    assert names <= reasons


def test_each_setting_of_the_page_is_there() -> None:
    settings = re.findall(r"`TOLLMESH_CREDITS_([A-Z_]+)`", PAGE)
    assert settings
    assert {name.lower() for name in settings} <= set(CreditSettings.model_fields)


@pytest.mark.parametrize("said", re.findall(r"\*([a-z][^*]+DIRECTORY[^*]+)\*", PAGE))
def test_each_message_of_the_page_is_in_the_code_in_these_words(said: str) -> None:
    # What stands in for a path, a cause or the name of a file is not in the code.
    for part in re.split(r" in DIRECTORY|DIRECTORY|\.\.\.|data\.mdb|Permission denied", said):
        words = part.strip(" :;").removeprefix("cannot open ").removeprefix("cannot write ")
        assert words in PLAIN
