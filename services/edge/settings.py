"""The edge's settings: environment variables ``TOLLMESH_EDGE_...``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from services.edge.origins.options import OriginName, OriginOptions
from services.process.settings import (
    Address,
    AfterValidator,
    ClientSettings,
    Field,
    SecretFile,
    ServerSettings,
    SettingsConfigDict,
    model_validator,
)

MEBIBYTE = 1024 * 1024

_ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[a-z0-9.:\[\]_-]+").fullmatch


def _origin(text: str) -> str:
    if not _ORIGIN(text):
        raise ValueError("must be an origin as browsers write it, https://app.example, or *")
    return text


Origin = Annotated[str, AfterValidator(_origin)]
"""Scheme, host and port of web pages, in small letters, or ``*``."""


class EdgeSettings(ServerSettings, ClientSettings):
    """What an edge is told."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_EDGE_")

    grpc_listen: Address = Field(
        "127.0.0.1:0", description="Where EdgeService listens: host:port (listen is for HTTP)."
    )
    grpc_ready_file: Path | None = Field(
        None, description="As ready_file, with the address of EdgeService."
    )
    auth_target: Address = Field(description="The auth service: host:port.")
    credits_target: Address = Field(description="The credit service: host:port.")
    chain_target: Address = Field(description="The chain service: host:port.")
    region: str = Field(
        "local",
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="Where this edge is; in authorisations and in Cache-Status.",
    )
    default_network: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9-]{0,31})?$",
        description="The network of paths that name none: /downloads/{cid}, /file/{cid}.",
    )
    cors_origins: list[Origin] = Field(
        ["*"],
        description="Origins of web pages that may read answers, as JSON; * for any, [] for none.",
    )
    cache_dir: Path = Field(description="What this edge keeps. One process a directory.")
    memory_bytes: int = Field(
        256 * MEBIBYTE, ge=0, description="The memory tier's bound, in bytes of objects."
    )
    memory_object_bytes: int = Field(
        MEBIBYTE, ge=0, description="Larger objects stay out of the memory tier."
    )
    disk_bytes: int = Field(
        10 * 1024 * MEBIBYTE,
        ge=0,
        description="The disk tier's bound, partial files included.",
    )
    disk_objects: int = Field(200_000, ge=1, description="How many objects the disk tier holds.")
    pin_bytes: int = Field(
        5 * 1024 * MEBIBYTE, ge=0, description="The part of disk_bytes that may be pinned."
    )
    pin_period_s: float = Field(
        30 * 86_400.0, gt=0, description="Pins are paid ahead, each time for so long, in s."
    )
    pin_grace_s: float = Field(
        3 * 86_400.0,
        ge=0,
        description="How long an object stays pinned whose next period cannot be paid, in s.",
    )
    scrub_bytes_per_s: int = Field(
        MEBIBYTE,
        ge=0,
        description="How fast stored files are read again to find what went bad. 0: never.",
    )
    blocked_by: str = Field(
        "",
        pattern=r"^([a-z][a-z0-9+.-]*:[!-;=?-~]+)?$",
        description="Who has objects be banned here: a URL, for the Link of a 451 (RFC 7725).",
    )
    range_gap_bytes: int = Field(
        4 * MEBIBYTE,
        ge=0,
        description="A range that starts this far beyond what has arrived is read by itself.",
    )
    finality_recheck_s: float = Field(
        2.0, gt=0, description="How often an object that is not final yet is asked about, in s."
    )
    origin_idle_s: float = Field(
        15.0, gt=0, description="How long the chain service may be silent amid an object, in s."
    )
    origins: dict[OriginName, OriginOptions] = Field(
        {},
        description="HTTP origins, served below /origins/{name}/: JSON, for each name its url "
        "and options, as docs/origins.md has them.",
    )
    origin_memory_bytes: int = Field(
        128 * MEBIBYTE, ge=0, description="Answers of origins that are kept in memory, in bytes."
    )
    origin_disk_bytes: int = Field(
        2 * 1024 * MEBIBYTE, ge=0, description="Larger ones that are kept in files, in bytes."
    )
    origin_object_bytes: int = Field(
        256 * MEBIBYTE, ge=0, description="Larger answers of origins are passed on unstored."
    )
    max_upload_bytes: int = Field(
        1024 * MEBIBYTE, ge=0, description="Larger uploads are refused (OBJECT_TOO_LARGE)."
    )
    transfer_s: int = Field(
        600,
        ge=1,
        le=86_400,
        description="How long a transfer may take at least, in s; its hold lives longer.",
    )
    slowest_bytes_per_s: int = Field(
        16 * 1024,
        gt=0,
        description="Transfers get this much longer by their size; slower ones are cut off.",
    )
    connections: int = Field(
        8192, gt=0, description="HTTP connections at once; further ones are refused (OVERLOADED)."
    )
    deliveries: int = Field(
        8192, gt=0, description="Paid transfers at once, those still to be settled included."
    )
    lease_credits: int = Field(
        1_000_000,
        ge=0,
        description="The largest lease of an account and meter; at most an eighth of what it has. "
        "0: none, each delivery is reserved.",
    )
    lease_s: float = Field(
        120.0,
        ge=1,
        le=86_400,
        description="How long a lease lives that is not settled, in s: at most so long an edge "
        "delivers on what it has while the credit service is away.",
    )
    lease_settle_s: float = Field(
        1.0, gt=0, description="How often what was spent of a lease is settled, in s."
    )
    lease_idle_s: float = Field(
        10.0, gt=0, description="A lease of which so long nothing was spent is given back, in s."
    )
    leases: int = Field(4096, gt=0, description="How many leases this edge may have at once.")
    unsettled: Literal["release", "debit_estimate"] = Field(
        "release",
        description="What becomes of credit set aside by an edge that never comes back: release "
        "(back to the account; what was delivered is lost), or debit_estimate (all of it).",
    )
    top_up_url: str = Field(
        "",
        pattern=r"^(https?://[!-~]{1,500})?$",
        description="Where accounts get more credit; told to those who have too little.",
    )
    unreported: Literal["release", "debit_estimate"] = Field(
        "debit_estimate",
        description="What another proxy's delivery costs when it is not reported by its end: "
        "release (what was reported so far), or debit_estimate (all that was set aside).",
    )
    guest_estimate_bytes: int = Field(
        MEBIBYTE,
        ge=0,
        description="What is set aside for another proxy's delivery of unknown size.",
    )
    front_secret_file: SecretFile | None = Field(
        None,
        description="What nginx and Caddy before or beside this edge send in Tollmesh-Front. "
        "Unset: /door is closed.",
    )
    front_socket: Path | None = Field(
        None,
        description="A Unix socket where HTTP is served besides, without TLS, for nginx on this "
        "machine: cheaper than TCP. Nobody but this process's user may connect.",
    )
    accel_prefix: str = Field(
        "",
        pattern=r"^(/[A-Za-z0-9._~-]+)*/?$",
        description="Where an nginx before this edge has cache_dir/objects/, such as "
        "/tollmesh-cache/: it sends hits by itself. Unset: it does not.",
    )
    capture_log: Path | None = Field(
        None, description="The access log of nginx or Caddy that says what they sent: followed."
    )
    keep_credentials: bool = Field(
        default=False,
        description="Whether the upstreams of other proxies see readers' credentials.",
    )
    guest_tickets: int = Field(
        8192, gt=0, description="Deliveries of other proxies at once, those unreported included."
    )

    @model_validator(mode="after")
    def _bounds_fit(self) -> Self:
        if self.pin_bytes > self.disk_bytes:
            raise ValueError(
                f"{self.variable('pin_bytes')}: must be at most {self.variable('disk_bytes')}: "
                "what is pinned is a part of the disk tier"
            )
        return self

    @model_validator(mode="after")
    def _front_is_known(self) -> Self:
        if self.accel_prefix and self.front_secret_file is None:
            raise ValueError("accel_prefix needs front_secret_file")
        return self

    def grpc_address(self) -> str:
        """Where EdgeService is served; HTTP has ``listen``."""
        return self.grpc_listen
