"""Options and fixtures of the whole suite."""

from __future__ import annotations

import pytest

from services.process import logs


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--chaos-kills",
        type=int,
        default=5,
        help="how often the chaos test kills the credit service (make chaos: 50)",
    )


def pytest_configure() -> None:
    """Logs as the processes do: the library's own default shows variables, and takes its time."""
    logs.configure("info", "json")
