"""The credit service's settings: environment variables ``TOLLMESH_CREDITS_...``."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Literal

from services.credits.records import MAX_AMOUNT
from services.credits.tariff import FreePeriod, Rates, Tariff
from services.credits.watch import POLL_S, WATCHERS
from services.process.settings import (
    FACE,
    AfterValidator,
    BaseModel,
    ConfigDict,
    Face,
    Field,
    ServerSettings,
    SettingsConfigDict,
    field_validator,
)
from services.store.open import checked_url

MeterName = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,31}$")]

Currency = Annotated[str, Field(pattern="^[a-z][a-z0-9-]{0,31}$")]

_MAX_PART = 2**63


class MeterPrice(BaseModel):
    """The price of one meter, as the tariff has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    currency: Currency = Field(default="credit", description="What the meter is paid in.")
    miss: str = Field(
        description='Currency per unit, exactly: "3/1024", "2" or "0.5"; also where no cache is '
        "involved."
    )
    hit: str | None = Field(default=None, description="For what a cache served. Unset: as miss.")
    free: int = Field(
        default=0,
        ge=0,
        le=MAX_AMOUNT,
        description="Units that are free of charge, by account and period.",
    )
    free_period: Literal["day", "month"] = Field(
        default="month", description="When the free units begin anew: each UTC day or month."
    )
    minimum: int = Field(
        default=0,
        ge=0,
        le=MAX_AMOUNT,
        description="What a debit costs at least, unless all of it is free.",
    )
    shadow: bool = Field(
        default=False,
        description="Meter it, take what there is, and refuse nothing for want of credit.",
    )

    @field_validator("miss", "hit")
    @classmethod
    def _is_a_rate(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                rate = Fraction(text)
            except (ValueError, ZeroDivisionError):
                raise ValueError('must be a rate such as "3/1024", "2" or "0.5"') from None
            if rate < 0 or rate.numerator > _MAX_PART or rate.denominator > _MAX_PART:
                raise ValueError("must not be negative, nor larger or finer than 64 bits")
        return text

    def rates(self) -> Rates:
        """The price as exact numbers."""
        miss = Fraction(self.miss)
        return Rates(
            self.currency,
            miss if self.hit is None else Fraction(self.hit),
            miss,
            self.free,
            FreePeriod[self.free_period.upper()],
            self.minimum,
            self.shadow,
        )


DEFAULT_TARIFF = {
    "download": MeterPrice(hit="1/1024", miss="2/1024"),
    "upload": MeterPrice(miss="4/1024"),
    # Byte-hours: 30 days cost what one download of the same bytes from a cache does.
    "pin": MeterPrice(miss="1/737280"),
}


class CreditSettings(ServerSettings):
    """What the credit service is told."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_CREDITS_")

    face: Face = Field(default="auto", description=FACE)
    store: Annotated[str, AfterValidator(checked_url)] = Field(
        description="The store's URL: lmdb:///DIRECTORY, or fdb:///CLUSTER_FILE?directory=NAME."
    )
    tariff: dict[MeterName, MeterPrice] = Field(
        default=DEFAULT_TARIFF,
        description="Prices by meter, as JSON: "
        '{"download": {"currency": "credit", "hit": "1/1024", "miss": "2/1024"}}. '
        "A debit costs quantity x rate, rounded up; without hit, a hit costs what a miss does. "
        "A meter may also have free units (free, in each free_period: day or month), a minimum for "
        "what is not free altogether, and shadow: true, which refuses nothing.",
    )
    request_record_hours: int = Field(
        24,
        ge=24,
        description="For how long at least a repeated request_id is recognised, and a closed hold "
        "still known, in h.",
    )
    sweep_s: float = Field(
        1.0,
        gt=0,
        description="How often holds and grants are expired that nobody touches, and old records "
        "removed, in s.",
    )
    watchers: int = Field(
        WATCHERS,
        ge=0,
        description="How many balances may be watched at once; further watchers are refused. Each "
        "is one of the max_concurrent_calls: leave room for debits.",
    )
    watch_poll_s: float = Field(
        POLL_S,
        gt=0,
        description="How often each watcher looks for changes that other processes made, in s.",
    )

    @property
    def record_s(self) -> int:
        """``request_record_hours`` in seconds."""
        return self.request_record_hours * 3600

    def rated_tariff(self) -> Tariff:
        """The tariff with exact rates."""
        return Tariff({meter: price.rates() for meter, price in self.tariff.items()})
