"""What the pages point at exists: files, make targets, commands, tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from services.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "protos/README.md"],
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    lost = [link for link in links if not (page.parent / link).exists()]
    paths = re.findall(r"`((?:services|tests|protos|bench|deploy|docs)/[\w./-]+)`", text)
    lost += [path for path in paths if not (ROOT / path).exists()]
    assert not lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_make_target_and_command_of_a_page_is_there(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ |\| `)make ([a-z-]+)", text))
    assert named <= targets
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]  # a group
    assert set(re.findall(r"(?:\$ \S*|`)tollmesh ([a-z]+)", text)) <= commands


def test_every_page_is_reached_from_the_readme() -> None:
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen:
            continue
        seen.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
        for target in [(page.parent / link).resolve() for link in links if "://" not in link]:
            waiting += sorted(target.glob("*.md")) if target.is_dir() else []
            waiting += [target] if target.suffix == ".md" else []
    assert not [page for page in PAGES if page not in seen]
