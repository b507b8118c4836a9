"""Generates the stubs beside the protos; with --check, demands that they are what is there.

Owns how the generators are called. The versions are pinned in pyproject.toml, because generated
code sets the oldest protobuf that can import it.
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.resources
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent
MESSAGES_ONLY = {"buf/validate/validate.proto", "tollmesh/errors/v1/errors.proto"}


def main() -> int:
    """Generates or checks; the exit status says whether the stubs are right."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, report differences")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        _generate(out)
        fresh = {path.relative_to(out) for path in out.rglob("*_pb2*.py*")}
        stale = {path.relative_to(ROOT) for path in _generated()} - fresh
        changed = {path for path in fresh if not _same(out / path, ROOT / path)}
        if check:
            for path in sorted(stale | changed):
                sys.stderr.write(f"protos/{path} is not what the protos give: run make protos\n")
            return 1 if stale or changed else 0
        for path in stale:
            (ROOT / path).unlink()
        for path in changed:
            shutil.copyfile(out / path, ROOT / path)
    return 0


def _generate(out: Path) -> None:
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={ROOT}"]
    protoc += [f"--proto_path={well_known}", f"--python_out={out}", f"--mypy_out=quiet:{out}"]
    protos = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("tollmesh/**/*.proto")}
    services = sorted(protos - MESSAGES_ONLY)
    _run([*protoc, *sorted(MESSAGES_ONLY)])
    _run([*protoc, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services])


def _run(command: list[str]) -> None:
    plugins = str(Path(sys.executable).parent)
    subprocess.run(command, check=True, env={"PATH": f"{plugins}:/usr/bin:/bin"})  # noqa: S603 (our own command)


def _generated() -> list[Path]:
    return [path for top in ("buf", "tollmesh") for path in (ROOT / top).rglob("*_pb2*.py*")]


def _same(fresh: Path, present: Path) -> bool:
    return present.exists() and filecmp.cmp(fresh, present, shallow=False)


if __name__ == "__main__":
    sys.exit(main())
