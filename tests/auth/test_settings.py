"""The settings: what is accepted, and that every mistake says what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from services.auth.settings import AuthSettings
from services.process.settings import ValidationError, mistakes

PREFIX = "TOLLMESH_AUTH_"


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    path = tmp_path / "pepper"
    path.write_text("0123456789abcdef" * 4 + "\n")
    return path


def settings(monkeypatch: pytest.MonkeyPatch, **variables: str) -> AuthSettings:
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    return AuthSettings()  # type: ignore[call-arg]  # from the environment


def wrong(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(monkeypatch, **variables)
    return "\n".join(mistakes(AuthSettings, caught.value))


def test_a_store_and_a_pepper_are_enough(monkeypatch: pytest.MonkeyPatch, pepper: Path) -> None:
    given = settings(monkeypatch, store="lmdb:///var/lib/x", peppers=json.dumps({"1": str(pepper)}))
    assert given.pepper_in_use == "1"
    assert given.environment == "local"
    assert given.request_record_hours >= 24


def test_of_several_peppers_one_is_current(monkeypatch: pytest.MonkeyPatch, pepper: Path) -> None:
    peppers = json.dumps({"1": str(pepper), "2": str(pepper)})
    assert "CURRENT_PEPPER" in wrong(monkeypatch, store="lmdb:///x", peppers=peppers)
    assert "one of 1, 2" in wrong(monkeypatch, current_pepper="3")
    assert settings(monkeypatch, current_pepper="2").pepper_in_use == "2"


def test_without_a_pepper_it_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for peppers in (None, "{}", json.dumps({"1": str(tmp_path / "absent")})):
        variables = {} if peppers is None else {"peppers": peppers}
        told = wrong(monkeypatch, store="lmdb:///x", **variables)
        assert f"{PREFIX}PEPPERS" in told
        assert "Make one with: (umask 077; head -c 32 /dev/urandom | base64 > /FILE)" in told


def test_a_short_pepper_is_refused_without_being_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    short = tmp_path / "pepper"
    short.write_text("hunter2\n")
    told = wrong(monkeypatch, store="lmdb:///x", peppers=json.dumps({"1": str(short)}))
    assert "shorter than 32 bytes" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("environment", "Local"),
        ("environment", "a_b"),
        ("environment", ""),
        ("decision_cache_s", "-1"),
        ("concurrent_requests", "-1"),
        ("request_record_hours", "23"),
        ("sweep_s", "0"),
        ("peppers", "not json"),
    ],
)
def test_a_value_out_of_range_is_named(
    monkeypatch: pytest.MonkeyPatch, pepper: Path, field: str, value: str
) -> None:
    variables = {"store": "lmdb:///x", "peppers": json.dumps({"1": str(pepper)}), field: value}
    assert wrong(monkeypatch, **variables).startswith(PREFIX + field.upper())


def test_all_mistakes_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    told = wrong(monkeypatch, environment="?", sweep_s="x", listen="nowhere")
    for name in ("STORE", "PEPPERS", "ENVIRONMENT", "SWEEP_S", "LISTEN"):
        assert f"{PREFIX}{name}:" in told
