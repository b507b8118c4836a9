"""REDbot, which judges how a resource speaks HTTP: run against a server, and what it found.

It has an event loop of its own, so it runs in a process of its own::

    findings = await judged("http://127.0.0.1:7440/objects/...", {"X-API-Key": key})
    assert errors(findings) == []
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from configparser import ConfigParser
from dataclasses import asdict, dataclass
from typing import Any

from tests.support.deadline import DEADLINE_S


@dataclass(frozen=True, slots=True)
class Finding:
    """A note of REDbot's."""

    level: str
    """``good``, ``info``, ``warning`` or ``bad``."""
    name: str
    """Of the kind of note: ``ETAG_SUBREQ_PROBLEM``."""
    subject: str
    """What it is about: ``field-etag``."""
    check: str
    """The request that showed it: ``default``, ``range``, ``conneg``, ``etag`` or ``lm``."""
    summary: str


async def judged(
    url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET"
) -> list[Finding]:
    """All that REDbot says of a resource after its own requests: a plain one, a range, validators.

    Args:
        url: of the resource.
        headers: sent with every request (a credential, say).
        method: of every request.

    Raises AssertionError when REDbot itself fails or cannot get an answer.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-m", "tests.support.redbot"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    question = json.dumps({"url": url, "headers": dict(headers or {}), "method": method})
    try:
        async with asyncio.timeout(DEADLINE_S):
            output, complaints = await process.communicate(question.encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    return [Finding(**each) for each in json.loads(output)]


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that say that something is wrong."""
    return [finding for finding in findings if finding.level == "bad"]


def warnings(findings: Iterable[Finding]) -> list[Finding]:
    """Those that say that something may be wrong."""
    return [finding for finding in findings if finding.level == "warning"]


def _main() -> None:
    """Answers one question of ``judged``, from standard input to standard output."""
    question = json.load(sys.stdin)
    resource = _checked(question["url"], question["method"], question["headers"])
    if resource.fetch_error is not None:
        sys.exit(f"no answer from {question['url']}: {resource.fetch_error!r}")
    found: dict[tuple[str, ...], Finding] = {}
    for finding in _findings(resource):
        # Some are noted with both requests that show them.
        found.setdefault((finding.name, finding.subject, finding.summary), finding)
    json.dump([asdict(finding) for finding in found.values()], sys.stdout)


def _checked(url: str, method: str, headers: Mapping[str, str]) -> Any:  # noqa: ANN401 (untyped)
    """A resource, after all of REDbot's requests."""
    import thor  # noqa: PLC0415 (only in the process of its own)
    from redbot.resource import HttpResource  # noqa: PLC0415 (only in the process of its own)

    config = ConfigParser()
    config.read_dict({"redbot": {"enable_local_access": "True"}})
    resource = HttpResource(config["redbot"])
    resource.set_request(url, method, list(headers.items()))
    resource.on("check_done", thor.stop)
    resource.check()
    if not resource.check_done:
        thor.run()
    return resource


def _findings(resource: Any) -> Iterator[Finding]:  # noqa: ANN401 (untyped)
    for check in (resource, *resource.subreqs.values()):
        for note in check.response.notes:
            for each in (note, *note.subnotes):
                yield Finding(
                    each.level.value,
                    type(each).__name__,
                    each.subject,
                    check.check_id,
                    each.summary,
                )


if __name__ == "__main__":
    _main()
