"""Reads Content-Disposition fields strictly by their grammar (RFC 6266, RFC 8187)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_FIELD = re.compile(rf"({_TOKEN})((?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|{_QUOTED}))*)").fullmatch
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*({_TOKEN})=({_TOKEN}|{_QUOTED})").finditer
_EXTENDED = re.compile(
    r"(?i:utf-8)'[A-Za-z-]*'((?:[!#$&+.^_`|~0-9A-Za-z-]|%[0-9A-Fa-f]{2})*)"
).fullmatch


@dataclass(frozen=True, slots=True)
class Disposition:
    """What a field says."""

    kind: str
    plain: str
    """The name for those who know RFC 6266 in part."""
    name: str
    """The name for all others: the extended one, if there is one."""


def disposition_of(field: str) -> Disposition:
    """Reads a field. Raises AssertionError when it is not well-formed."""
    match = _FIELD(field)
    assert match, field
    parameters: dict[str, str] = {}
    for each in _PARAMETER(match[2]):
        assert each[1].lower() not in parameters, "each parameter once"
        parameters[each[1].lower()] = each[2]
    plain = parameters.pop("filename", "")
    if plain.startswith('"'):
        plain = re.sub(r"\\(.)", r"\1", plain[1:-1])
    name = plain
    if "filename*" in parameters:
        extended = _EXTENDED(parameters.pop("filename*"))
        assert extended, field
        name = unquote_to_bytes(extended[1]).decode()
    assert not parameters, parameters
    return Disposition(match[1].lower(), plain, name)
