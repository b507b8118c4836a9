"""The auth service's settings: environment variables ``TOLLMESH_AUTH_...``."""

from __future__ import annotations

from typing import Annotated, Self

from services.auth.credential import ENVIRONMENT_PATTERN
from services.auth.peppers import MIN_PEPPER_BYTES
from services.process.settings import (
    AfterValidator,
    Field,
    SecretFile,
    ServerSettings,
    SettingsConfigDict,
    field_validator,
    model_validator,
)
from services.store.open import checked_url

PepperId = Annotated[str, Field(pattern="^[A-Za-z0-9._-]{1,32}$")]


class AuthSettings(ServerSettings):
    """What the auth service is told."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_AUTH_")

    store: Annotated[str, AfterValidator(checked_url)] = Field(
        description="The store's URL: lmdb:///DIRECTORY, or fdb:///CLUSTER_FILE?directory=NAME."
    )
    environment: str = Field(
        "local",
        pattern=f"^{ENVIRONMENT_PATTERN}$",
        description="Which mesh keys are for: tm_<environment>_... Other meshes' keys are unknown.",
    )
    peppers: dict[PepperId, SecretFile] = Field(
        min_length=1,
        description='Files of the secrets that key hashes need, by id, as JSON: {"1": "/FILE"}. '
        "Make one with: (umask 077; head -c 32 /dev/urandom | base64 > /FILE), and keep a copy: "
        "without it no key works.",
    )
    current_pepper: str = Field(
        "", description="The id of the pepper that new hashes use. Needed when there are several."
    )
    decision_cache_s: float = Field(
        5.0,
        ge=0,
        le=3600,
        description="How long an edge may reuse a decision, in s: so long can a revoked key work.",
    )
    concurrent_requests: int = Field(
        256, ge=0, description="Requests of one account in flight on one edge. 0: no limit."
    )
    request_record_hours: int = Field(
        24, ge=24, description="For how long at least a repeated request_id is recognised, in h."
    )
    sweep_s: float = Field(
        60.0, gt=0, description="How often records of old request ids are removed, in s."
    )

    @field_validator("peppers")
    @classmethod
    def _peppers_are_strong(cls, peppers: dict[str, SecretFile]) -> dict[str, SecretFile]:
        for name, file in peppers.items():
            if len(file.read_bytes()) < MIN_PEPPER_BYTES:
                raise ValueError(f"pepper {name!r} is shorter than {MIN_PEPPER_BYTES} bytes")
        return peppers

    @model_validator(mode="after")
    def _current_pepper_is_known(self) -> Self:
        if self.pepper_in_use not in self.peppers:
            raise ValueError(
                f"{self.variable('current_pepper')}: must be one of {', '.join(self.peppers)}"
            )
        return self

    @property
    def pepper_in_use(self) -> str:
        """The id of the pepper of new hashes: the only one, unless said otherwise."""
        if not self.current_pepper and len(self.peppers) == 1:
            return next(iter(self.peppers))
        return self.current_pepper
