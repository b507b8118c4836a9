"""The public suite for HTTP caches, http-tests/cache-tests: its origin server, its client, a count.

A test counts as passed only when those that it depends on pass, as the suite itself counts. The
package of npm is installed by make; ``--http-suite DIRECTORY`` runs another copy.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.cli.mesh.processes import free_port
from tests.support.deadline import DEADLINE_S

_NODE_MODULES = Path(__file__).parents[2] / "deploy" / "node" / "node_modules"
INSTALLED = _NODE_MODULES / "http-cache-tests"
_SCRIPT = Path(__file__).with_name("cache_suite.mjs")
_SUITE_S = 300.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a test."""

    id: str
    kind: str
    """``required``, ``optimal``, or ``check``, which is neither right nor wrong."""
    result: str
    """``passed``, ``failed``, ``setup`` (something else went wrong) or ``unmet`` (a dependency)."""
    detail: str

    def __str__(self) -> str:
        return f"{self.id}: {self.detail}"


@dataclass(frozen=True, slots=True)
class Score:
    """The outcomes of a run."""

    outcomes: tuple[Outcome, ...]

    def of(self, result: str, *kinds: str) -> list[Outcome]:
        """The tests of these kinds that ended so."""
        return [each for each in self.outcomes if each.result == result and each.kind in kinds]

    @property
    def passes(self) -> int:
        """Required and optimal tests that passed."""
        return len(self.of("passed", "required", "optimal"))

    @property
    def required_failures(self) -> list[Outcome]:
        """What a cache must do, and this one does not."""
        return self.of("failed", "required")

    def __str__(self) -> str:
        lines = [f"{len(self.outcomes)} tests: {self.passes} passes (required and optimal)"]
        for title, found in (
            ("required failures", self.required_failures),
            ("not optimal", self.of("failed", "optimal")),
            ("setup failures", self.of("setup", "required", "optimal", "check")),
            ("without what they depend on", self.of("unmet", "required", "optimal")),
        ):
            lines += [f"{title}: {len(found)}", *(f"  {each}" for each in found)]
        checks = Counter(each.result for each in self.outcomes if each.kind == "check")
        lines.append(f"behaviours that are only looked at: {dict(checks)}")
        return "\n".join(lines)


@asynccontextmanager
async def suite_origin(suite: Path = INSTALLED) -> AsyncIterator[str]:
    """Runs the suite's origin server; its URL."""
    script = _engine(suite) / "server" / "server.mjs"
    port = free_port()
    settings = {"protocol": "http", "port": str(port), "pidfile": os.devnull}
    environment = os.environ | {f"npm_config_{name}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        *(_node(), str(script)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    reading = None
    try:
        async with asyncio.timeout(DEADLINE_S):
            assert process.stdout is not None
            while b"Listening" not in (line := await process.stdout.readline()):
                assert line, "the suite's server did not start"
        reading = asyncio.create_task(process.stdout.read())  # so that it never has to wait
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def run_suite(base: str, suite: Path = INSTALLED, only: str = "") -> Score:
    """Runs the tests against the cache at ``base``, or one of them, whose messages are printed."""
    process = await asyncio.create_subprocess_exec(
        *(_node(), "--no-warnings", str(_SCRIPT), str(suite), base, only),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_SUITE_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, "the suite's client failed"
    *messages, report = output.decode().strip().splitlines()
    if only:
        sys.stdout.write("\n".join(messages))
    return Score(tuple(_judged(json.loads(report))))


def _judged(report: list[dict[str, object]]) -> Iterable[Outcome]:
    """The outcomes, judged as the suite does."""
    tests = {str(each["id"]): each for each in report}
    alone = len(tests) == 1
    cache: dict[str, str] = {}

    def result(name: str) -> str:
        if name not in tests:
            return "failed"
        if name not in cache:
            needs = tests[name]["needs"]
            assert isinstance(needs, list)
            met = alone or all(result(need) == "passed" for need in needs)
            cache[name] = _own_result(tests[name]["error"]) if met else "unmet"
        return cache[name]

    for name, test in tests.items():
        error = test["error"]
        detail = str(error[1]) if isinstance(error, list) else ""
        yield Outcome(name, str(test["kind"]), result(name), detail)


def _own_result(error: object) -> str:
    if error is None:
        return "passed"
    assert isinstance(error, list)
    return "setup" if error[0] in {"Setup", "AbortError"} else "failed"


def _engine(suite: Path) -> Path:
    engine = suite / "test-engine"
    return engine if engine.is_dir() else suite


def _node() -> str:
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}"
    node = shutil.which("node", path=path)
    assert node is not None, "there is no node: run make programs"
    return node
