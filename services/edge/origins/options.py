"""What an operator says of each origin: a part of the edge's settings."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import urlsplit

from services.edge.origins.freshness import Defaults
from services.process.settings import AfterValidator, BaseModel, ConfigDict, Field, FilePath

_NO_URL = "must be a URL such as https://gateway.example/files"


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        well_formed = bool(parts.hostname) and parts.port != 0 and re.fullmatch("[!-~]+", text)
    except ValueError:
        raise ValueError(_NO_URL) from None
    extra = parts.query or parts.fragment or parts.username is not None
    if not well_formed or extra or parts.scheme not in {"http", "https"}:
        raise ValueError(_NO_URL)
    return text.rstrip("/")


class OriginOptions(BaseModel):
    """One origin."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, AfterValidator(_url)] = Field(
        description="Where it is; what follows the origin's name in a path is appended."
    )
    sponsor: str = Field(
        "", description="The account that pays for requests without a key of ours; unset: 401."
    )
    authorization: bool = Field(
        default=False,
        description="Whether an Authorization that is not ours goes on (sponsored origins only).",
    )
    cookies: bool = Field(
        default=False, description="Whether Cookie goes to the origin, and Set-Cookie comes back."
    )
    forwarded: bool = Field(
        default=True, description="Whether the origin is told who asks (Forwarded, RFC 7239)."
    )
    rewrite_locations: bool = Field(
        default=True, description="Whether redirects within the origin lead through the edge."
    )
    request_directives: bool = Field(
        default=True, description="Whether clients may demand fresh answers (their Cache-Control)."
    )
    meter_uploads: bool = Field(
        default=False, description="Whether bodies of requests are paid for, on the meter upload."
    )
    ca_file: FilePath | None = Field(
        None, description="Who signs the origin's certificate; unset: whom the machine trusts."
    )
    connections: int = Field(64, ge=1, description="At most so many connections at once.")
    connect_s: float = Field(
        5.0, gt=0, description="How long a request waits for a connection, in s."
    )
    answer_s: float = Field(30.0, gt=0, description="How long an answer may take to begin, in s.")
    idle_s: float = Field(30.0, gt=0, description="How long a body may pause, in s.")
    heuristic_s: float = Field(
        86_400.0,
        ge=0,
        description="At most so long is an answer fresh by its Last-Modified alone, in s.",
    )
    negative_s: float = Field(
        5.0, ge=0, description="How long a 404 or 410 is fresh that does not say, in s."
    )
    stale_if_error_s: float = Field(
        60.0,
        ge=0,
        description="How long a stale answer stands in for an origin that cannot be reached, in s.",
    )
    estimate_bytes: int = Field(
        64 * 1024, ge=1, description="Set aside before the length of an answer is known."
    )

    @property
    def defaults(self) -> Defaults:
        """What holds where a response says nothing."""
        return Defaults(self.heuristic_s, self.negative_s, self.stale_if_error_s)


OriginName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$")]
"""As it stands in paths."""
