"""``tollmesh publish``, ``get``, ``status`` and ``cid``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from services.chain.dag.builder import FileBuilder
from services.cli import output
from services.cli.connection import described, new_request_id
from services.cli.failure import FAILED, CommandError
from services.cli.options import Json, RequestId
from services.cli.transfer import CHUNK_BYTES, Edge

File = Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)]
Name = Annotated[
    str | None,
    typer.Option(help="The name to record; the file's own unless given, '' for none."),
]
Network = Annotated[str | None, typer.Option(help="The network; the local mesh's unless given.")]
EdgeUrl = Annotated[str | None, typer.Option("--edge", help="The edge's URL.")]
Cid = Annotated[str, typer.Argument(help="The object's CID, bafkr6i...")]
Wait = Annotated[
    str | None, typer.Option(help="Return only when it is 'published' or 'finalized'.")
]


def publish(
    file: File,
    name: Name = None,
    network: Network = None,
    edge: EdgeUrl = None,
    wait: Wait = None,
    request_id: RequestId = None,
    json: Json = False,
) -> None:
    """Upload a file and publish it to the chain."""
    if wait not in {None, "published", "finalized"}:
        raise typer.BadParameter("choose 'published' or 'finalized'", param_hint="--wait")
    asyncio.run(_publish(file, name, network, edge, wait, request_id, json=json))


async def _publish(
    file: Path,
    name: str | None,
    network: str | None,
    edge: str | None,
    wait: str | None,
    request_id: str | None,
    *,
    json: bool,
) -> None:
    at, network = _edge(edge), network or described("network")
    with output.progress(quiet=json) as bar:
        task = bar.add_task("Uploading", total=file.stat().st_size)
        answer = await at.upload(
            file,
            network=network,
            name=file.name if name is None else name,
            request_id=request_id or new_request_id(),
            advance=lambda count: bar.advance(task, count),
        )
        if wait:
            bar.update(task, description=f"Waiting until it is {wait}")
            answer |= await until(at, network, str(answer["cid"]), wait)
    _show(answer, json=json)


def get(
    cid: Cid,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write; '-' is stdout.")
    ] = None,
    byte_range: Annotated[
        str | None, typer.Option("--range", help="Bytes: 0-99, 100- or -100 (the last 100).")
    ] = None,
    network: Network = None,
    edge: EdgeUrl = None,
    json: Json = False,
) -> None:
    """Download an object from an edge."""
    at, network = _edge(edge), network or described("network")
    target = out or Path(cid)
    if str(target) == "-":
        asyncio.run(_get(at, network, cid, sys.stdout.buffer, byte_range, quiet=True))
        return
    partial = target.with_name(f".{target.name}.part")
    try:
        with partial.open("wb") as file:
            headers = asyncio.run(_get(at, network, cid, file, byte_range, quiet=json))
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    size = target.stat().st_size
    cache = headers.get("cache-status", "")
    if json:
        output.as_json({"cid": cid, "file": str(target), "size_bytes": size, "cache": cache})
    else:
        output.console.print(f"{target}: {size:,} bytes ({cache})", highlight=False)


async def _get(
    at: Edge, network: str, cid: str, file: BinaryIO, byte_range: str | None, *, quiet: bool
) -> dict[str, str]:
    with output.progress(quiet=quiet) as bar:
        task = bar.add_task("Downloading", total=None)
        return await at.download(
            f"/objects/{network}/{cid}",
            file,
            byte_range=byte_range,
            advance=lambda count: bar.advance(task, count),
        )


def status(cid: Cid, network: Network = None, edge: EdgeUrl = None, json: Json = False) -> None:
    """Show how far an upload has come on its way to the chain."""
    at, network = _edge(edge), network or described("network")
    _show(asyncio.run(at.document(f"/objects/{network}/{cid}/status")), json=json)


def cid(file: File, name: Name = None, json: Json = False) -> None:
    """Print the CID that a file has on every network. Needs no mesh."""
    builder = FileBuilder((file.name if name is None else name) or None)
    with file.open("rb") as data, output.progress(quiet=json) as bar:
        task = bar.add_task("Hashing", total=file.stat().st_size)
        while chunk := data.read(CHUNK_BYTES):
            for _ in builder.feed(chunk):
                pass  # only the names of the nodes matter here
            bar.advance(task, len(chunk))
        for _ in builder.finish():
            pass
    if json:
        output.as_json({"cid": str(builder.root), "size_bytes": builder.size})
    else:
        sys.stdout.write(f"{builder.root}\n")


async def until(at: Edge, network: str, cid: str, state: str) -> dict[str, object]:
    """Asks until an upload is ``published`` or ``finalized``; the last answer.

    Raises CommandError when the publication failed.
    """
    done = {"published": {"published", "finalized"}, "finalized": {"finalized"}}[state]
    while True:
        answer = await at.document(f"/objects/{network}/{cid}/status")
        if answer["state"] in done:
            return answer
        if answer["state"] == "failed":
            message = f"the publication failed: {answer.get('message')}; publish again to retry"
            raise CommandError(message, FAILED)
        await asyncio.sleep(0.2)


def _edge(url: str | None) -> Edge:
    return Edge(url or described("edge_url"), described("key"))


def _show(answer: dict[str, object], *, json: bool) -> None:
    if json:
        output.as_json(answer)
        return
    rows = [(name.replace("_", " "), value) for name, value in answer.items() if value != ""]
    output.table(str(answer.get("cid", "")), ("", ""), [(name, str(value)) for name, value in rows])
