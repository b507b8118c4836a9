"""Disks that fill up: a service is started on one, and the test says when it is full."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

_ROOM_BYTES = 300_000
_TMPFS_BYTES = 8_000_000
_MOUNT = 'mount -t tmpfs -o size="$0" tmpfs "$1" && shift && exec "$@"'


class SmallDisk(Protocol):
    """A directory for a store, or a cache."""

    directory: Path

    @property
    def before(self) -> Sequence[str]:
        """What a service's command must begin with."""

    def fill(self, pid: int, room_bytes: int = _ROOM_BYTES) -> None:
        """From now on there is hardly any room for the process, or none."""

    def make_room(self, pid: int) -> None:
        """From now on there is."""


class Quota:
    """No file of the process may become larger than its data file is, and a little: EFBIG."""

    before: Sequence[str] = ()

    def __init__(self, directory: Path, data_file: str = "data.mdb") -> None:
        self.directory = directory
        self._data_file = data_file

    def fill(self, pid: int, room_bytes: int = _ROOM_BYTES) -> None:
        """As above. Files that are larger already cannot be written at their end at all."""
        limit = (self.directory / self._data_file).stat().st_size + room_bytes
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def make_room(self, pid: int) -> None:
        """As above."""
        resource.prlimit(
            pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        )


class Tmpfs:
    """A file system of its own that somebody else fills: ENOSPC. In a mount namespace."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.directory = directory
        self.before = [*_namespace(), "sh", "-c", _MOUNT, str(_TMPFS_BYTES), str(directory)]

    @staticmethod
    def can_be_had(directory: Path) -> bool:
        """Whether this machine lets the test mount one."""
        command = [*_namespace(), "sh", "-c", _MOUNT, "4096", str(directory), "true"]
        return not subprocess.run(command, capture_output=True, check=False).returncode

    def fill(self, pid: int, room_bytes: int = _ROOM_BYTES) -> None:
        """As above."""
        with self._other(pid).open("wb") as other:
            room = os.statvfs(other.fileno())
            other.write(b"x" * max(0, room.f_bavail * room.f_frsize - room_bytes))

    def make_room(self, pid: int) -> None:
        """As above."""
        self._other(pid).unlink()

    def _other(self, pid: int) -> Path:
        """A file on it, by the process that sees it."""
        return Path(f"/proc/{pid}/root{self.directory}") / "somebody else's"


def _namespace() -> list[str]:
    command = ["unshare", "--mount"]
    return command if os.geteuid() == 0 else [*command, "--map-root-user"]


_DROP_CAPABILITIES = """
import ctypes, os, sys
for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP
os.execv(sys.argv[1], sys.argv[1:])
"""
BOUND_BY_PERMISSIONS: Sequence[str] = (sys.executable, "-c", _DROP_CAPABILITIES)
"""What the command of a process begins with for which a directory's mode counts, even as root."""
