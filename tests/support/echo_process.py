"""The echo service as a process, made as every service is: python -m tests.support.echo_process.

Behaviours: those of RemoteEcho, and ``slow`` (0.5 s), ``break``, ``refuse``, ``note``.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from services.chain.errors import ObjectNotFoundError
from services.process.lifecycle import announce_ready, run
from services.process.logs import get_logger
from services.process.settings import Field, SecretFile, ServerSettings, SettingsConfigDict
from services.rpc.call import Call
from services.rpc.server import Limits, Server
from services.rpc.tls import ServerTls
from tests.support.echo_behaviours import TRANSLATE, RemoteEcho
from tests.support.echo_service import ForeignEchoServicer, Message, pb

log = get_logger(__name__)


class EchoSettings(ServerSettings):
    """As a service declares its own."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_ECHO_")

    fail_at_start: str = Field(default="", description="How to fail: os or bug.")
    secret: SecretFile | None = Field(default=None, description="A file that holds a secret.")
    networks: dict[str, dict[str, int]] = Field(default={}, description="Limits by network.")
    gates: Path = Field(default=Path(), description="Where the gates of its calls stand.")


async def _slow(_: Message, __: Call) -> Message:
    log.info("waiting")
    await asyncio.sleep(0.5)
    return pb.SayResponse(text="done")


async def _break(request: Message, _: Call) -> Message:
    raise ValueError(f"broken by {request.text}")


async def _refuse(_: Message, __: Call) -> Message:
    raise ObjectNotFoundError("not there", metadata={"cid": "c1"})


async def _note(_: Message, call: Call) -> Message:
    call.note(replayed=True)
    return pb.SayResponse()


async def serve(settings: EchoSettings, stop: asyncio.Event) -> None:
    """Serves until told to stop."""
    if settings.fail_at_start == "os":
        raise ConnectionRefusedError(111, "no database at 127.0.0.1:4500")
    if settings.fail_at_start == "bug":
        raise ZeroDivisionError("a bug")
    behaviours = {"slow": _slow, "break": _break, "refuse": _refuse, "note": _note}
    server = Server(
        listen=settings.listen,
        servicers=[RemoteEcho(settings.gates, **behaviours), ForeignEchoServicer()],
        translate=TRANSLATE,
        tls=ServerTls.of(settings),
        limits=Limits(settings.max_concurrent_calls, settings.max_message_bytes),
        drain_s=settings.drain_s,
    )
    await server.start()
    announce_ready(settings.ready_file, server.address)
    await stop.wait()
    await server.drain()


if __name__ == "__main__":
    run(EchoSettings, serve)
