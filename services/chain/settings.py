"""The chain service's settings: environment variables ``TOLLMESH_CHAIN_...``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from services.chain.networks.evm.settings import EvmSettings
from services.process.settings import AfterValidator, Field, ServerSettings, SettingsConfigDict
from services.store.open import checked_url

NetworkName = Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,31}$")]


class ChainSettings(ServerSettings):
    """What the chain service is told."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_CHAIN_")

    store: Annotated[str, AfterValidator(checked_url)] = Field(
        description="The store's URL: lmdb:///DIRECTORY, or fdb:///CLUSTER_FILE?directory=NAME."
    )
    spool_dir: Path = Field(
        description="A directory for files on their way to a chain. Keep it: it is the only copy."
    )
    networks: dict[NetworkName, EvmSettings] = Field(
        min_length=1,
        description='By name, as JSON: {"NAME": {"kind": "evm", "endpoints": ["http://..."], '
        '"inbox_address": "0x...", "private_key_file": "/FILE", "start_block": 0}}.',
    )
    max_object_bytes: int = Field(
        4 << 30, gt=0, description="Larger files are not published, in bytes."
    )
    max_spool_bytes: int = Field(
        16 << 30, gt=0, description="What may wait in the spool of a network, in bytes."
    )
    poll_s: float = Field(
        1.0, gt=0, description="How often a network is asked for its newest block, in s."
    )
    request_record_hours: int = Field(
        24, ge=24, description="For how long at least a repeated request_id is recognised, in h."
    )
    sweep_s: float = Field(
        60.0, gt=0, description="How often records of old request ids are removed, in s."
    )
