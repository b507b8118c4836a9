"""Settings from the environment, and what is said about mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.process.settings import (
    Address,
    BaseModel,
    ClientSettings,
    Field,
    SecretFile,
    ServerSettings,
    Settings,
    SettingsConfigDict,
    ValidationError,
    load,
    model_validator,
)


class Price(BaseModel):
    """A nested value."""

    per_unit: int


class Example(ServerSettings, ClientSettings):
    """As a service declares its own."""

    model_config = SettingsConfigDict(env_prefix="TOLLMESH_EXAMPLE_")

    store: str = Field(description="Where the data is.")
    credits_target: Address = Field(default="127.0.0.1:1", description="The credit service.")
    prices: dict[str, Price] = Field(default={}, description="Prices by meter.")
    regions: list[str] = Field(default=[], description="Regions.")
    pepper: SecretFile | None = Field(default=None, description="The pepper.")

    @model_validator(mode="after")
    def _agree(self) -> Example:
        if self.regions == ["nowhere"]:
            raise ValueError("regions and prices do not agree")
        return self


def _set(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    monkeypatch.setenv("TOLLMESH_EXAMPLE_STORE", "lmdb:///x")
    for name, value in values.items():
        monkeypatch.setenv(f"TOLLMESH_EXAMPLE_{name.upper()}", value)


def _mistakes(capsys: pytest.CaptureFixture[str], kind: type[Settings] = Example) -> str:
    with pytest.raises(SystemExit) as caught:
        load(kind)
    assert caught.value.code == 2
    return capsys.readouterr().err


def test_variables_become_typed_values(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pepper = tmp_path / "pepper"
    pepper.write_text("  sesame\n")
    _set(
        monkeypatch,
        listen="[::1]:7070",
        prices='{"download": {"per_unit": 3}}',
        regions='["eu", "us"]',
        pepper=str(pepper),
        max_concurrent_calls="7",
    )
    settings = load(Example)
    assert settings.store == "lmdb:///x"
    assert settings.listen == "[::1]:7070"
    assert settings.prices == {"download": Price(per_unit=3)}
    assert settings.regions == ["eu", "us"]
    assert settings.max_concurrent_calls == 7
    assert settings.pepper is not None
    assert settings.pepper.read_text() == "sesame"
    assert settings.pepper.read_bytes() == b"sesame"


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch)
    settings = load(Example)
    with pytest.raises(ValidationError, match="frozen"):
        settings.store = "other"


def test_arguments_stand_above_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, listen="127.0.0.1:5")
    assert Example(store="s", listen="127.0.0.1:6").listen == "127.0.0.1:6"


def test_all_mistakes_are_reported_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _set(
        monkeypatch,
        listen="somewhere",
        log_level="loud",
        max_message_bytes="many",
        prices='{"download": {"per_unit": "x"}, "pin": {}}',
        regions="eu,us",
        pepper=str(tmp_path / "missing"),
        tls_key_file=str(tmp_path / "missing.key"),
        lissen="127.0.0.1:1",
    )
    monkeypatch.delenv("TOLLMESH_EXAMPLE_STORE")
    text = _mistakes(capsys)
    for told in (
        "STORE: is required and not set (Where the data is.)",
        "LISTEN: must be host:port, such as 127.0.0.1:7070",
        "LOG_LEVEL: Input should be 'debug', 'info', 'warning' or 'error'",
        "MAX_MESSAGE_BYTES: Input should be a valid integer",
        "PRICES / download / per_unit: ",
        "PRICES / pin / per_unit: ",
        "REGIONS: is not JSON: ",
        "PEPPER: cannot read the file: No such file or directory",
        "TLS_KEY_FILE: Path does not point to a file",
        "LISSEN: no such setting; did you mean TOLLMESH_EXAMPLE_LISTEN?",
    ):
        assert f"TOLLMESH_EXAMPLE_{told}" in text, text


def test_a_mistake_of_several_settings_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(monkeypatch, regions='["nowhere"]')
    told = "TOLLMESH_EXAMPLE_REGIONS and TOLLMESH_EXAMPLE_PRICES do not agree"
    assert told in _mistakes(capsys)


def test_a_wrong_value_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _set(monkeypatch, drain_s="hunter2", prices='{"hunter2"', credits_target="hunter2")
    assert "hunter2" not in _mistakes(capsys)


def test_half_a_certificate_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "some.pem"
    file.write_text("x")
    for names in (
        {"tls_key_file"},
        {"tls_client_ca_file"},
        {"peer_key_file", "peer_ca_file"},
        {"peer_key_file", "peer_certificate_file"},
    ):
        with monkeypatch.context() as patch:
            _set(patch, **dict.fromkeys(names, str(file)))
            text = _mistakes(capsys)
        assert "TOLLMESH_EXAMPLE_TLS_" in text or "TOLLMESH_EXAMPLE_PEER_" in text


def test_what_other_programs_read_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, target="127.0.0.1:7070", url="http://127.0.0.1:8080")
    assert load(Example).store == "lmdb:///x"


def test_an_empty_secret_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "empty").write_text("\n")
    _set(monkeypatch, pepper=str(tmp_path / "empty"))
    assert "PEPPER: the file is empty" in _mistakes(capsys)


def test_a_secret_does_not_show(tmp_path: Path) -> None:
    (tmp_path / "pepper").write_text("sesame")
    secret = SecretFile(tmp_path / "pepper")
    assert "sesame" not in repr(Example(store="s", pepper=secret))


def test_every_setting_is_described() -> None:
    for kind in (ServerSettings, ClientSettings):
        for name, field in kind.model_fields.items():
            assert field.description, name
            assert field.description.endswith("."), name
