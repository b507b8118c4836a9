"""Origins behind TLS: only those whose certificate is signed by whom the operator trusts."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from tests.edge.conftest import World
from tests.support.certificates import Authority
from tests.support.http_origin import HttpOrigin, answer


async def test_an_origin_shows_a_certificate_that_is_trusted(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    signed = authority.sign("origin")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed.certificate_file, signed.key_file)
    payer = await world.tenant()
    async with HttpOrigin(context) as origin:
        origin.on("/a", answer(200, b"secret"))
        site: dict[str, Any] = {"url": origin.url, "sponsor": payer.account_id}
        trusted = site | {"ca_file": str(authority.own.certificate_file)}
        async with world.edge(origins={"trusted": trusted, "unknown": site}) as edge:
            assert (await edge.get("/origins/trusted/a")).body == b"secret"
            assert (await edge.get("/origins/unknown/a")).status == 502
    assert len(origin.requests) == 1
