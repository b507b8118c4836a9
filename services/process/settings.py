"""Settings: frozen, typed, from environment variables; all mistakes are reported together.

A service's settings subclass ``ServerSettings`` with an ``env_prefix``; a field's variable is the
prefix and its name in capitals. Lists and mappings are written as JSON. Secrets come from files.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FilePath,
    GetCoreSchemaHandler,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, ErrorDetails, core_schema
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from services.process.envoy import Listener, why_not

__all__ = [
    "Address",
    "AfterValidator",
    "BaseModel",
    "ClientSettings",
    "ConfigDict",
    "Field",
    "FilePath",
    "SecretFile",
    "ServerSettings",
    "Settings",
    "SettingsConfigDict",
    "ValidationError",
    "field_validator",
    "load",
    "mistakes",
    "model_validator",
]

_MAX_PORT = 65_535


def _address(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not (separator and host and port.isdecimal() and int(port) <= _MAX_PORT):
        raise ValueError("must be host:port, such as 127.0.0.1:7070 or [::1]:7070")
    return text


Address = Annotated[str, AfterValidator(_address)]
"""``host:port``; an IPv6 host in brackets."""


class SecretFile:
    """A file whose contents are a secret; the setting is its path. Never printed, never logged."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_bytes(self) -> bytes:
        """The contents without surrounding white space. Raises OSError."""
        return self.path.read_bytes().strip()

    def read_text(self) -> str:
        """The contents as text without surrounding white space. Raises OSError, UnicodeError."""
        return self.path.read_text().strip()

    def __repr__(self) -> str:
        return f"SecretFile({str(self.path)!r})"

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, __: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._validate)

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if not isinstance(value, str | Path):
            raise ValueError("must be the path of a file")  # noqa: TRY004 (pydantic reports these)
        secret = cls(Path(value))
        try:
            contents = secret.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read the file: {error.strerror}") from error
        if not contents:
            raise ValueError("the file is empty")
        return secret


class _Environment(EnvSettingsSource):
    """Leaves what is not JSON to validation, which reports it beside all other mistakes."""

    def decode_complex_value(
        self,
        field_name: str,
        field: FieldInfo,
        value: Any,  # noqa: ANN401 (pydantic's signature)
    ) -> Any:  # noqa: ANN401 (pydantic's signature)
        """The value that JSON stands for, or the text when it is not JSON."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class Settings(BaseSettings):
    """The base of every process's settings; constructor arguments stand above the environment."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True
    )

    foreign: ClassVar[frozenset[str]] = frozenset({"target", "url"})
    """Names that the command reads under the same prefix (``TOLLMESH_AUTH_TARGET``)."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic's signature)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Constructor arguments, then environment variables; nothing else."""
        return init_settings, _Environment(settings_cls)

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


Face = Literal["grpcio", "envoy", "auto"]
FACE = (
    "What speaks gRPC: grpcio, or envoy (faster; needs pyvoy); auto is envoy where it runs, else "
    "grpcio."
)


class ServerSettings(Settings):
    """What every process that listens has."""

    listen: Address = Field(
        default="127.0.0.1:0", description="Where to listen: host:port; port 0 picks."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The lowest level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="How lines look; auto is console in a terminal and json elsewhere.",
    )
    tls_certificate_file: FilePath | None = Field(
        default=None, description="The server's certificate chain, PEM. Unset: plain text."
    )
    tls_key_file: FilePath | None = Field(
        default=None, description="The certificate's private key, PEM."
    )
    tls_client_ca_file: FilePath | None = Field(
        default=None,
        description="Authorities that callers' certificates must come from, PEM: mTLS.",
    )
    max_concurrent_calls: int = Field(
        default=1000,
        gt=0,
        description="Calls under way at once; further ones are refused (OVERLOADED).",
    )
    max_message_bytes: int = Field(
        default=4 * 1024 * 1024, ge=1024, description="The largest request or answer, in bytes."
    )
    drain_s: float = Field(
        default=10.0,
        ge=0,
        description="How long calls under way may take to finish after SIGTERM, in s.",
    )
    face: Face = Field(default="grpcio", description=FACE)
    grpc_web_origins: list[str] = Field(
        default=[],
        description="Origins of web pages that may call by gRPC-Web, as JSON; * for any. Only with "
        "the envoy face.",
    )
    ready_file: Path | None = Field(
        default=None,
        description="Written once the process listens; holds the address it listens on.",
    )

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together: set both or none")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file and tls_key_file")
        return self

    @model_validator(mode="after")
    def _face_runs(self) -> Self:
        reason = why_not() if self.face == "envoy" else None
        if reason is not None:
            raise ValueError(f"face envoy is not possible: {reason}")
        if self.grpc_web_origins and self.face == "grpcio":
            raise ValueError("grpc_web_origins needs face envoy")
        return self

    def listener(self) -> Listener:
        """What Envoy is told with the envoy face."""
        return Listener(
            address=self.grpc_address(),
            max_concurrent_calls=self.max_concurrent_calls,
            certificate_file=self.tls_certificate_file,
            key_file=self.tls_key_file,
            client_ca_file=self.tls_client_ca_file,
            web_origins=tuple(self.grpc_web_origins),
        )

    def grpc_address(self) -> str:
        """Where gRPC is served; ``listen`` unless a service says otherwise."""
        return self.listen


class ClientSettings(Settings):
    """What every process that calls other services has; shared by all that it calls."""

    peer_ca_file: FilePath | None = Field(
        default=None,
        description="Authorities of the services that are called, PEM. Unset: plain text.",
    )
    peer_certificate_file: FilePath | None = Field(
        default=None,
        description="The certificate shown to the services that are called, PEM: mTLS.",
    )
    peer_key_file: FilePath | None = Field(
        default=None, description="The private key of peer_certificate_file, PEM."
    )

    @model_validator(mode="after")
    def _peer_tls_is_whole(self) -> Self:
        if (self.peer_certificate_file is None) != (self.peer_key_file is None):
            raise ValueError(
                "peer_certificate_file and peer_key_file go together: set both or none"
            )
        if self.peer_certificate_file is not None and self.peer_ca_file is None:
            raise ValueError("peer_certificate_file needs peer_ca_file")
        return self


S = TypeVar("S", bound=Settings)


def load(settings_class: type[S]) -> S:
    """The settings from the environment. With mistakes: prints them all and exits with status 2."""
    problems = list(_unknown_variables(settings_class))
    try:
        settings = settings_class()
    except ValidationError as error:
        problems = [*mistakes(settings_class, error), *problems]
    else:
        if not problems:
            return settings
    lines = "\n".join(f"  {problem}" for problem in problems)
    sys.stderr.write(f"These settings are wrong (environment variables):\n{lines}\n")
    sys.exit(2)


def mistakes(settings_class: type[Settings], error: ValidationError) -> list[str]:
    """What is wrong, a line each: the variable, what is wrong with it, and what it is for.

    A validator of several settings names them as the class does; their variables are told instead.
    """
    return [_mistake(settings_class, detail) for detail in error.errors(include_url=False)]


def _mistake(settings_class: type[Settings], detail: ErrorDetails) -> str:
    message = detail["msg"].removeprefix("Value error, ")
    if not detail["loc"]:
        return _with_variables(settings_class, message)
    name, *path = (str(part) for part in detail["loc"])
    field = settings_class.model_fields.get(name)
    if detail["type"] == "missing" and not path:
        message = "is required and not set"
    elif field is not None and not path and isinstance(detail["input"], str):
        message = _not_json(detail["input"], detail["type"]) or message
    where = settings_class.variable(name) + "".join(f" / {part}" for part in path)
    purpose = f" ({field.description})" if field is not None and field.description else ""
    return f"{where}: {message}{purpose}"


def _with_variables(settings_class: type[Settings], message: str) -> str:
    """A message about several settings, with their variables in place of their names."""
    names = "|".join(settings_class.model_fields)
    return re.sub(rf"\b({names})\b", lambda match: settings_class.variable(match[0]), message)


def _not_json(text: str, error_type: str) -> str | None:
    if error_type not in {"dict_type", "list_type", "tuple_type", "set_type", "model_type"}:
        return None
    try:
        json.loads(text)
    except ValueError as error:
        return f"is not JSON: {error}"
    return None


def _unknown_variables(settings_class: type[Settings]) -> Iterator[str]:
    prefix = settings_class.variable("")
    if not prefix:
        return
    known = {settings_class.variable(name) for name in settings_class.model_fields}
    foreign = {settings_class.variable(name) for name in settings_class.foreign}
    for name in sorted(os.environ):
        if name.upper().startswith(prefix) and name.upper() not in known | foreign:
            near = difflib.get_close_matches(name.upper(), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            yield f"{name}: no such setting{hint}"
