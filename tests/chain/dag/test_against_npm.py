"""Fresh random files through our builder and through the real @autonomys/auto-dag-data."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from services.chain.dag.builder import FileBuilder
from services.chain.dag.cid import Cid
from services.chain.dag.node import MAX_CHUNK_BYTES, MAX_LINKS
from services.rpc.errors import InvalidArgumentError
from tests.support.file_dag import build

NODE_MODULES = Path(__file__).parents[3] / "deploy" / "node" / "node_modules"
SCRIPT = Path(__file__).parent / "encode_files.mjs"
NAMES = ["plain.bin", "with spaces & (signs).tar.gz", "naïve-日本語-😀.txt", "a" * 255, "", None]


def run_package(files: list[dict[str, str]]) -> subprocess.CompletedProcess[str]:
    """Run the package; fails the test, and never skips it, when it is not installed."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}"
    node = shutil.which("node", path=path)
    if node is None or not (NODE_MODULES / "@autonomys" / "auto-dag-data").is_dir():
        pytest.fail(
            "This test runs the real npm package and it is not installed: `make test` installs "
            "it into deploy/node/node_modules (with node itself when the machine has none)."
        )
    return subprocess.run(
        [node, SCRIPT, NODE_MODULES, json.dumps(files)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write_file(path: Path, data: bytes, name: str | None) -> dict[str, str]:
    path.write_bytes(data)
    return {"path": str(path)} if name is None else {"path": str(path), "name": name}


def encode_with_package(files: list[dict[str, str]]) -> list[dict[str, Any]]:
    answer = run_package(files)
    assert answer.returncode == 0, answer.stderr
    answers: list[dict[str, Any]] = json.loads(answer.stdout)
    return answers


def fresh_sizes(rng: random.Random) -> list[int]:
    boundaries = [times * MAX_CHUNK_BYTES + by for times in (1, 2, 3) for by in (-1, 0, 1)]
    near = [MAX_CHUNK_BYTES + rng.randint(-600, 600) for _ in range(3)]
    return [0, 1, *boundaries, *near, *(rng.randint(0, 5 << 20) for _ in range(3))]


def test_fresh_random_files_have_the_same_nodes(rng: random.Random, tmp_path: Path) -> None:
    inputs = [(rng.randbytes(size), rng.choice(NAMES)) for size in fresh_sizes(rng)]
    inputs += [(rng.randbytes(rng.randint(0, 64_000)), name) for name in [*NAMES, "日" * 255]]
    inputs.append((b"\x07" * (5 * MAX_CHUNK_BYTES), "equal chunks"))
    files, built = [], []
    for index, (data, name) in enumerate(inputs):
        builder = FileBuilder(name)
        nodes = build(data, builder, piece_bytes=rng.randint(1_000, 1 << 20)).nodes
        built.append((builder.root, {str(cid) for cid in nodes}))
        files.append(write_file(tmp_path / str(index), data, name))
    for (root, ours), theirs in zip(built, encode_with_package(files), strict=True):
        assert str(root) == theirs["head"]
        assert ours == set(theirs["nodes"])


def test_a_fresh_file_of_two_levels_has_the_same_nodes(rng: random.Random, tmp_path: Path) -> None:
    data = rng.randbytes((MAX_LINKS + 1) * MAX_CHUNK_BYTES + rng.randint(1, MAX_CHUNK_BYTES))
    builder = FileBuilder("two levels.bin")
    ours: set[Cid] = set()
    view = memoryview(data)
    for at in range(0, len(data), 1 << 20):
        ours.update(cid for cid, _ in builder.feed(view[at : at + (1 << 20)]))
    ours.update(cid for cid, _ in builder.finish())
    theirs = encode_with_package([write_file(tmp_path / "big", data, "two levels.bin")])[0]
    assert len(ours) == MAX_LINKS + 2 + 2 + 1
    assert str(builder.root) == theirs["head"]
    assert {str(cid) for cid in ours} == set(theirs["nodes"])


@pytest.mark.parametrize(
    ("name", "size_bytes"),
    [("a" * 256, 0), ("😀" * 128, 0), ("日" * 255, MAX_CHUNK_BYTES)],
)
def test_a_name_that_the_package_refuses_is_refused(
    name: str, size_bytes: int, tmp_path: Path
) -> None:
    theirs = run_package([write_file(tmp_path / "file", bytes(size_bytes), name)])
    assert theirs.returncode != 0
    assert "too l" in theirs.stderr
    with pytest.raises(InvalidArgumentError) as refused:
        build(bytes(size_bytes), FileBuilder(name))
    assert "name" in refused.value.violations
