"""Settings of networks: mistakes are told, secrets are not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.chain.settings import ChainSettings
from services.chain.spool import Spool
from services.process.settings import ValidationError, mistakes
from tests.support.chain_service import chain_settings
from tests.support.service_process import run_to_its_end


def problems(settings: dict[str, object]) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        ChainSettings.model_validate(settings)
    return mistakes(ChainSettings, refused.value)


def test_every_mistake_in_a_network_is_told(tmp_path: Path) -> None:
    settings = chain_settings(
        tmp_path, "ftp://nowhere", inbox_address="0x12", kind="utxo", chain_id=0
    )
    told = "\n".join(problems(settings))
    for key in ("endpoints / 0", "inbox_address", "kind", "chain_id"):
        assert f"TOLLMESH_CHAIN_NETWORKS / evm-local / {key}: " in told


def test_a_network_name_that_no_call_could_carry_is_refused(tmp_path: Path) -> None:
    settings = chain_settings(tmp_path, "http://nowhere")
    settings["networks"]["EVM main"] = settings["networks"].pop("evm-local")
    assert "EVM main" in problems(settings)[0]


def test_a_wrong_private_key_is_refused_without_being_shown(tmp_path: Path) -> None:
    settings = chain_settings(tmp_path, "http://nowhere")
    (tmp_path / "publisher.key").write_text("0xdeadbeef")
    [told] = problems(settings)
    assert "private_key_file: is not a private key" in told
    assert "deadbeef" not in told


async def test_a_spool_in_use_is_one_clear_line(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool" / "evm-local")
    try:
        settings = {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in chain_settings(tmp_path, "http://127.0.0.1:1").items()
        }
        status, output = await run_to_its_end("chain", settings)
    finally:
        spool.close()
    assert status == 1
    assert "another process uses the spool" in output
    assert "Traceback" not in output
