"""Programs of Debian packages that tests run beside ours: nginx, Caddy."""

from __future__ import annotations

import shutil
from pathlib import Path

_ROOT = Path(__file__).parents[2] / "deploy" / "debian" / "root"


def program(name: str) -> str:
    """The path of a program: what make put here, else the machine's.

    Raises FileNotFoundError.
    """
    for folder in ("usr/sbin", "usr/bin"):
        path = _ROOT / folder / name
        if path.exists():
            return str(path)
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"there is no {name} here: run make programs, or install it")
    return found
