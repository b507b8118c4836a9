"""docs/configuration.md against the settings classes."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support import settings_page

ROOT = Path(__file__).parents[2]


def test_the_page_is_what_the_settings_classes_make() -> None:
    assert settings_page.PAGE.read_text() == settings_page.page(), (
        "make it again: .venv/bin/python -m tests.support.settings_page"
    )


def test_every_setting_says_what_it_is_for() -> None:
    rows = [line for line in settings_page.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 30
    for row in rows:
        meaning = row.removesuffix(" |").rpartition(" | ")[2]
        assert meaning[:1].isupper(), row
        assert meaning.endswith("."), row


def test_the_command_s_variables_are_those_that_it_reads() -> None:
    source = (ROOT / "services/cli/connection.py").read_text()
    named = set(re.findall(r"TOLLMESH_[A-Z_]+[A-Z]", source))
    command = settings_page.page().partition("## The command")[2]
    assert set(re.findall(r"`(TOLLMESH_[A-Z_]+)`", command)) == named
