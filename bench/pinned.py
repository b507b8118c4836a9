"""Runs a program on some cores: ``python -m bench.pinned 0,1 PROGRAM ARGUMENTS...``."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 (no shell is wanted)
