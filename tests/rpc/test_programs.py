"""Programs that others use to call a gRPC server, on each face.

buf comes from npm and is always run. h2load is run where it is installed (Debian:
``apt-get install nghttp2-client``); elsewhere its test is not there.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path

import grpc
from google.rpc import error_details_pb2  # type: ignore[import-untyped]  # has none

from tests.support.echo_server import EchoServer
from tests.support.echo_service import pb
from tests.support.http2_peer import framed

BUF = Path(__file__).parents[2] / "deploy/node/node_modules/.bin/buf"
SERVICE = "tests.echo.v1.EchoService"


def _curl(echo: EchoServer, method: str, *requests: object) -> subprocess.CompletedProcess[str]:
    """Calls with no schema but what reflection tells."""
    assert BUF.exists(), "buf is not installed: `make test` installs it into deploy/node"
    return subprocess.run(
        [
            *(BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", "--data", "@-"),
            f"http://{echo.address}/{SERVICE}/{method}",
        ],
        input="\n".join(map(json.dumps, requests)),
        capture_output=True,
        text=True,
        timeout=30,
    )


def _answers(finished: subprocess.CompletedProcess[str]) -> list[str]:
    assert finished.returncode == 0, finished.stderr
    return re.findall(r'"text":\s*"(.*?)"', finished.stdout)


def test_buf_learns_the_contract_and_makes_calls_of_all_kinds(echo: EchoServer) -> None:
    assert _answers(_curl(echo, "Say", {"text": "a"})) == ["a"]
    assert _answers(_curl(echo, "Count", {"text": "a", "times": 3})) == ["a"] * 3
    assert _answers(_curl(echo, "Join", {"text": "a"}, {"text": "b"})) == ["ab"]
    assert _answers(_curl(echo, "Chat", {"text": "a"}, {"text": "b"})) == ["a", "b"]


def test_buf_shows_the_details_of_an_error(echo: EchoServer) -> None:
    failure = {"error": "ObjectNotFoundError", "message": "ü", "metadata": {"cid": "c1"}}
    finished = _curl(echo, "Say", {"behaviour": "fail", "failure": failure})
    assert finished.returncode == 8 * grpc.StatusCode.NOT_FOUND.value[0]
    error = json.loads(finished.stderr)
    assert (error["code"], error["message"]) == ("not_found", "ü")
    (info,) = [each for each in error["details"] if each["type"] == "google.rpc.ErrorInfo"]
    raw = base64.b64decode(info["value"] + "==")
    assert error_details_pb2.ErrorInfo.FromString(raw).metadata == {"cid": "c1"}


def _h2load_gets_an_answer_to_every_call(echo: EchoServer, tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(framed(pb.SayRequest(text="a").SerializeToString()))
    finished = subprocess.run(
        [
            *("h2load", "-n", "3000", "-c", "4", "-m", "50", "-d", body),
            *("-H", "content-type: application/grpc", "-H", "te: trailers"),
            f"http://{echo.address}/{SERVICE}/Say",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "3000 succeeded, 0 failed, 0 errored, 0 timeout" in finished.stdout, finished.stdout
    assert "status codes: 3000 2xx" in finished.stdout


if shutil.which("h2load"):
    test_h2load_gets_an_answer_to_every_call = _h2load_gets_an_answer_to_every_call
