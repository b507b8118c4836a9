from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import cast

import pytest

from services.credits.records import CacheResult, Metered
from services.credits.settings import CreditSettings
from services.credits.tariff import FreePeriod, Rates, cost
from services.process.settings import ValidationError


def _settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> CreditSettings:
    for name, value in {"store": "lmdb:///nowhere", **variables}.items():
        monkeypatch.setenv(f"TOLLMESH_CREDITS_{name}".upper(), value)
    return cast("Callable[[], CreditSettings]", CreditSettings)()  # all else has a default


def test_the_tariff_is_read_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    tariff = {
        "download": {"hit": "1/3", "miss": "0.1"},
        "letter": {"currency": "stamp", "miss": "2"},
    }
    rated = _settings(monkeypatch, tariff=json.dumps(tariff)).rated_tariff()
    download, letter = rated.rates("download"), rated.rates("letter")
    assert cost(download, Metered("download", 10**18, CacheResult.HIT)) == -(-(10**18) // 3)
    assert cost(download, Metered("download", 10**18 + 1, CacheResult.MISS)) == 10**17 + 1
    assert cost(letter, Metered("letter", 4, CacheResult.HIT)) == 8
    assert letter.currency == "stamp"


def test_a_meter_may_be_free_at_first_have_a_minimum_and_refuse_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tariff = {"pin": {"miss": "1/2", "free": 10, "free_period": "day", "minimum": 3}}
    tariff["probe"] = {"miss": "1", "shadow": True}
    rated = _settings(monkeypatch, tariff=json.dumps(tariff)).rated_tariff()
    half = Fraction(1, 2)
    assert rated.rates("pin") == Rates("credit", half, half, 10, FreePeriod.DAY, 3)
    assert rated.rates("probe") == Rates("credit", Fraction(1), Fraction(1), shadow=True)


def test_without_a_tariff_there_is_a_useful_one(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings(monkeypatch)
    rates = {meter: price.rates() for meter, price in settings.tariff.items()}
    assert set(rates) == {"download", "upload", "pin"}
    assert rates["download"] == Rates("credit", Fraction(1, 1024), Fraction(2, 1024))
    assert settings.record_s == 24 * 3600


@pytest.mark.parametrize(
    "variables",
    [
        {"tariff": '{"download": {"miss": "cheap"}}'},
        {"tariff": '{"download": {"miss": "1/0"}}'},
        {"tariff": '{"download": {"miss": "-1"}}'},
        {"tariff": '{"download": {"miss": "1/99999999999999999999"}}'},
        {"tariff": '{"download": {"hit": "1"}}'},
        {"tariff": '{"download": {"miss": "1", "mis": "2"}}'},
        {"tariff": '{"download": {"miss": "1", "currency": "$"}}'},
        {"tariff": '{"Down load": {"miss": "1"}}'},
        {"tariff": '{"download": {"miss": "1", "free": -1}}'},
        {"tariff": '{"download": {"miss": "1", "free": 9223372036854775808}}'},
        {"tariff": '{"download": {"miss": "1", "free_period": "week"}}'},
        {"tariff": '{"download": {"miss": "1", "minimum": -1}}'},
        {"tariff": "download=1"},
        {"request_record_hours": "23"},
        {"sweep_s": "0"},
    ],
)
def test_mistakes_are_found(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        _settings(monkeypatch, **variables)
