"""``tollmesh audit``: the proof that a ledger is right, of a running service or of a store's files.

Its exit status: 0 everything is right, 1 a difference was found, 2 it could not be checked.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer
from tollmesh.credits.v1 import ledger_pb2 as pb
from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceStub

from services.cli import output
from services.cli.connection import described
from services.cli.failure import FAILED, MISUSED, CommandError
from services.cli.mesh.processes import Child, free_port, start, stop
from services.credits.errors import ERRORS
from services.rpc.client import connect
from services.rpc.errors import ServiceError

if TYPE_CHECKING:
    from tollmesh.credits.v1.ledger_pb2_grpc import LedgerServiceAsyncStub

_NEVER_S = 10**8
"""How often a service that is audited alone looks for what is due, after the first time."""
_LOG_LINES = 15
_DEATH_S = 2.0
"""How long after a broken call its service may take to be seen as ended."""


def audit(
    account: Annotated[str, typer.Option(help="The account's id; all accounts unless given.")] = "",
    store: Annotated[
        Path | None,
        typer.Option(help="Audit the store in this directory, which no service may have open."),
    ] = None,
) -> None:
    """Replay the ledger entry by entry and compare. Exit 0: right, 1: a difference, 2: unknown."""
    try:
        if store is None:
            last = asyncio.run(_of_target(described("credits_target"), account))
        else:
            last = asyncio.run(_of_store(store, account))
    except ServiceError as error:
        message = f"the ledger could not be checked: {error} ({error.reason_name()})"
        raise CommandError(message, MISUSED) from error
    if not last.done:
        raise CommandError(_described(last.difference), FAILED)
    output.console.print("Everything is right.")


async def _of_target(target: str, account: str) -> pb.AuditResponse:
    async with connect(target, errors=ERRORS) as channel:
        return await _followed(LedgerServiceStub(channel), account)


async def _of_store(directory: Path, account: str) -> pb.AuditResponse:
    """Audits files with a credit service that runs for as long as this takes."""
    if not (directory / "data.mdb").is_file():
        raise CommandError(f"{directory} has no store: there is no data.mdb in it", MISUSED)
    with tempfile.TemporaryDirectory(prefix="tollmesh-audit-") as logs:
        address = f"127.0.0.1:{free_port()}"
        settings = {
            "TOLLMESH_CREDITS_STORE": f"lmdb://{quote(str(directory.absolute()))}",
            "TOLLMESH_CREDITS_LISTEN": address,
            "TOLLMESH_CREDITS_FACE": "grpcio",
            "TOLLMESH_CREDITS_SWEEP_S": str(_NEVER_S),
        }
        command = [sys.executable, "-m", "services.credits"]
        child = start("credits", command, Path(logs), settings)
        try:
            await child.listening(address)
            return await _of_target(address, account)
        except (ServiceError, CommandError) as error:
            if await _has_ended(child):
                raise CommandError(_death(child, directory), MISUSED) from error
            raise
        finally:
            await stop([child])


async def _followed(ledger: LedgerServiceAsyncStub, account: str) -> pb.AuditResponse:
    """The last message of an audit; says on a terminal how far it has come, and its rate."""
    began, last = time.monotonic(), pb.AuditResponse()
    line = ""
    with output.progress_of_text() as show:
        async for last in ledger.Audit(pb.AuditRequest(account_id=account)):
            seconds = max(time.monotonic() - began, 1e-3)
            line = (
                f"{last.accounts:,} accounts and {last.entries:,} entries in {seconds:.1f} s: "
                f"{last.entries / seconds:,.0f} entries/s"
            )
            show(line)
    output.console.print(line, highlight=False)
    if not last.done and not last.HasField("difference"):
        raise CommandError("the audit broke off before its end; try again", MISUSED)
    return last


async def _has_ended(child: Child) -> bool:
    deadline = time.monotonic() + _DEATH_S
    while child.process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


def _death(child: Child, directory: Path) -> str:
    lines = child.log.read_text(errors="replace").splitlines()[-_LOG_LINES:]
    code = child.process.returncode
    how = signal.Signals(-code).name if code < 0 else f"status {code}"
    end = "\n".join(f"  {line}" for line in lines) or "  (nothing)"
    return (
        f"the files of the store in {directory} are damaged or in use: the service that reads them "
        f"ended ({how}); its log ends with:\n{end}"
    )


def _described(difference: pb.Difference) -> str:
    entry = f", entry {difference.entry_id}" if difference.entry_id else ""
    account = f"  account {difference.account_id}{entry}\n" if difference.account_id else ""
    return (
        f"the ledger is not right: {difference.message}\n"
        f"{account}"
        f"  {difference.field}: {difference.found} instead of {difference.expected}"
    )
