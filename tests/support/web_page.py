"""A web page that calls by gRPC-Web, opened in a browser; or its script run in node.

The page is served with the packages that it uses, and sends what it saw back to its server.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor

from tests.support.deadline import DEADLINE_S
from tests.support.echo_service import pb

NODE = Path(__file__).parents[2] / "deploy" / "node"
SCRIPT = Path(__file__).with_name("web_client.mjs")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
Report = dict[str, Any]

_CONNECT, _PROTOBUF = "@connectrpc/connect", "@bufbuild/protobuf"
_IMPORTS = {
    "@connectrpc/connect-web": "/@connectrpc/connect-web/dist/esm/index.js",
    _CONNECT: f"/{_CONNECT}/dist/esm/index.js",
    _PROTOBUF: f"/{_PROTOBUF}/dist/esm/index.js",
} | {
    f"{package}/{part}": f"/{package}/dist/esm/{part}/index.js"
    for package, parts in {
        _CONNECT: ("protocol", "protocol-connect", "protocol-grpc-web"),
        _PROTOBUF: ("codegenv2", "reflect", "wire", "wkt"),
    }.items()
    for part in parts
}


def browser() -> str | None:
    """The browser of this machine, if it has one."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def report_of_node(address: str) -> Report:
    """What the script sees in node."""
    assert (NODE / "node_modules" / "@connectrpc" / "connect-web").is_dir(), (
        "@connectrpc/connect-web is not installed: `make test` installs it into deploy/node"
    )
    path = f"{os.environ.get('PATH', '')}{os.pathsep}{Path(sys.executable).parent}"
    node = shutil.which("node", path=path)
    assert node is not None, "node is not installed: `make test` installs it"
    call = f"await converse({_arguments(address)})"
    finished = subprocess.run(
        [node, "--input-type=module"],
        input=f"{SCRIPT.read_text()}\nconsole.log(JSON.stringify({call}));\n",
        cwd=NODE,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert finished.returncode == 0, finished.stderr
    report: Report = json.loads(finished.stdout)
    return report


class PageServer(ThreadingHTTPServer):
    """Serves the page; ``reports`` has what pages sent back."""

    def __init__(self) -> None:
        handler = partial(_Handler, directory=str(NODE / "node_modules"))
        super().__init__(("127.0.0.1", 0), handler)
        self.reports: queue.Queue[Report] = queue.Queue()
        self.page = ""

    @property
    def origin(self) -> str:
        """The page's origin, as browsers call it."""
        return f"http://127.0.0.1:{self.server_port}"

    def report_of(self, program: str, address: str, directory: Path) -> Report:
        """What the page sees in a browser."""
        call = f"await converse({_arguments(address)})"
        self.page = (
            f'<script type="importmap">{json.dumps({"imports": _IMPORTS})}</script>'
            f'<script type="module">{SCRIPT.read_text()}\n'
            f"const call = async () => {call};\n"
            "const report = await call().catch((error) => ({error: String(error)}));\n"
            'await fetch("/report", {method: "POST", body: JSON.stringify(report)});</script>'
        )
        options = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
        profile = f"--user-data-dir={directory}"
        with subprocess.Popen(
            [program, *options, profile, "--no-first-run", f"{self.origin}/page.html"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as running:
            try:
                return self.reports.get(timeout=DEADLINE_S)
            finally:
                running.terminate()


@contextmanager
def page_server() -> Iterator[PageServer]:
    """Serves on a thread."""
    with PageServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _Handler(SimpleHTTPRequestHandler):
    server: PageServer

    def do_GET(self) -> None:
        if self.path != "/page.html":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("content-type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self.server.page.encode())

    def do_POST(self) -> None:
        self.server.reports.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _arguments(address: str) -> str:
    return f"{json.dumps(f'http://{address}')}, {json.dumps(_descriptors())}"


def _descriptors() -> str:
    """The contract with all that it imports, in base64."""
    files: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        files[file.name] = file

    add(pb.DESCRIPTOR)
    found = descriptor_pb2.FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(found.file.add())
    return base64.b64encode(found.SerializeToString()).decode()
