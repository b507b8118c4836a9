"""Settings of a network of kind ``evm``."""

from __future__ import annotations

from typing import Annotated, Literal

from services.chain.networks.evm.signer import Signer
from services.process.settings import BaseModel, ConfigDict, Field, SecretFile, field_validator

HttpUrl = Annotated[str, Field(pattern="^https?://[^ ]+$")]


class EvmSettings(BaseModel):
    """One EVM chain and how the mesh uses it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    kind: Literal["evm"] = Field(description="The adapter.")
    endpoints: list[HttpUrl] = Field(
        min_length=1, description="JSON-RPC over HTTP, the preferred one first."
    )
    inbox_address: str = Field(
        pattern="^0x[0-9a-fA-F]{40}$",
        description="Transactions to this address carry nodes. Nobody needs to own it.",
    )
    chain_id: int | None = Field(
        None, gt=0, description="What every endpoint must say. Unset: what the first one says."
    )
    start_block: int = Field(
        0, ge=0, description="Where the index begins: no node of the mesh stands before it."
    )
    private_key_file: SecretFile | None = Field(
        None, description="The key of the account that publishes, in hex. Unset: only reading."
    )
    max_fee_gwei: float = Field(
        500.0, gt=0, description="The most that a unit of gas may cost, priority fee included."
    )
    transactions_in_flight: int = Field(
        64, gt=0, le=1024, description="Transactions that wait for their block at once."
    )
    stuck_after_s: float = Field(
        60.0, gt=0, description="After so long without progress, fees are raised, in s."
    )
    timeout_s: float = Field(5.0, gt=0, description="How long an endpoint may stay silent, in s.")

    @field_validator("private_key_file")
    @classmethod
    def _key_is_one(cls, file: SecretFile | None) -> SecretFile | None:
        if file is not None:
            Signer(file.read_text())
        return file
