"""docs/configuration.md, made from the settings classes: ``python -m tests.support.settings_page``.

A test demands that the page is what this makes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from services.process.settings import (
    BaseModel,
    ClientSettings,
    SecretFile,
    ServerSettings,
    Settings,
)

PAGE = Path(__file__).parents[2] / "docs/configuration.md"
SERVICES = ("auth", "credits", "chain", "edge")

_HEAD = """\
# Configuration

<!-- Made by: .venv/bin/python -m tests.support.settings_page -->

Every process is configured by environment variables alone. Lists and mappings are JSON; secrets are
files, named by their paths. A process reads its settings once, at its start, tells all mistakes
together and exits with status 2; `python -m services.NAME --check` does only that.

"required" stands where there is no default; "unset" where nothing is one.
"""
_COMMON = """\
## Every service

The prefix is the service's: `TOLLMESH_AUTH_LISTEN`, `TOLLMESH_CREDITS_LISTEN`, and so on.
"""
_CALLING = """\
## Services that call others

The prefix is the service's. These call others: {services}.
"""
_COMMAND = """\
## The command

`tollmesh` reads where the mesh is from the `mesh.json` that `tollmesh up` leaves in its home
directory. These variables stand above it.

| variable | meaning |
|---|---|
| `TOLLMESH_HOME` | The home directory of the local mesh. Default: `.tollmesh`. |
| `TOLLMESH_AUTH_TARGET` | The auth service: host:port. |
| `TOLLMESH_CREDITS_TARGET` | The credit service: host:port. |
| `TOLLMESH_EDGE_URL` | An edge: http://host:port. |
| `TOLLMESH_KEY` | The API key to act with. |
| `TOLLMESH_ACCOUNT` | The account to act on. |
"""
_WORDS: dict[object, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true or false",
    Path: "path",
    SecretFile: "path",
}
_BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}

Fields = Mapping[str, Any]


def page() -> str:
    """The whole page."""
    classes = {service: _settings_of(service) for service in SERVICES}
    calling = [name for name, settings in classes.items() if issubclass(settings, ClientSettings)]
    sections = [
        _HEAD,
        _COMMON,
        _table("variable", "..._", ServerSettings.model_fields),
        _CALLING.format(services=", ".join(calling)),
        _table("variable", "..._", ClientSettings.model_fields),
    ]
    for service, settings in classes.items():
        fields = _own_fields(settings)
        sections += [f"## {service.capitalize()}\n"]
        sections += [_table("variable", settings.variable(""), fields)]
        sections += _inner_tables(settings, fields)
    return "\n".join([*sections, _COMMAND])


def _settings_of(service: str) -> type[Settings]:
    module = import_module(f"services.{service}.settings")
    [settings] = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Settings)
        and value.__module__ == module.__name__
    ]
    return settings


def _own_fields(settings: type[Settings]) -> Fields:
    """What a service adds to the common settings, or changes in them."""
    common = {**ServerSettings.model_fields, **ClientSettings.model_fields}
    return {
        name: field
        for name, field in settings.model_fields.items()
        if name not in common or repr(common[name]) != repr(field)
    }


def _table(title: str, prefix: str, fields: Fields) -> str:
    rows = [f"| {title} | value | default | meaning |", "|---|---|---|---|"]
    for name, field in fields.items():
        cells = (
            f"`{prefix}{name.upper() if prefix else name}`",
            "; ".join([_type(field.annotation), *_bounds(field.metadata)]),
            "required" if field.is_required() else _default(field.get_default()),
            field.description or "",
        )
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*rows, ""])


def _inner_tables(settings: type[Settings], fields: Fields) -> Iterator[str]:
    """A table for each kind of JSON object that a variable holds."""
    for name, field in fields.items():
        for model in _models(field.annotation):
            heading = (model.__doc__ or model.__name__).partition("\n")[0]
            yield f"In `{settings.variable(name)}`: {heading[0].lower()}{heading[1:]}\n"
            yield _table("key", "", model.model_fields)


def _models(kind: object) -> Iterator[type[BaseModel]]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        yield kind
    for part in get_args(kind):
        yield from _models(part)


def _type(kind: object) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin in {Union, UnionType}:
        return " or ".join(_type(part) for part in parts if part is not NoneType)
    if origin in {list, tuple}:
        return "JSON array"
    if hasattr(kind, "__metadata__"):
        return _type(parts[0])
    return _WORDS.get(kind, "JSON object")


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for constraint in metadata:
        for name, words in _BOUNDS.items():
            if getattr(constraint, name, None) is not None:
                yield f"{words} {getattr(constraint, name)}"
        if getattr(constraint, "pattern", None):
            yield f"`{constraint.pattern}`"


def _default(value: object) -> str:
    if value in (None, ""):
        return "unset"
    if isinstance(value, str | Path):
        return f"`{value}`"
    return f"`{json.dumps(value, default=_plain)}`"


def _plain(value: BaseModel) -> object:
    return value.model_dump(mode="json", exclude_defaults=True)


if __name__ == "__main__":
    PAGE.write_text(page())
