"""Dictionaries of structured fields (RFC 9651), as far as targeted Cache-Control needs them.

The whole grammar is checked, because a field with a mistake anywhere is to be ignored as a whole.
"""

from __future__ import annotations

import re

_KEY = re.compile(r"[a-z*][a-z0-9_.*-]*")
_NUMBER = re.compile(r"-?(?:[0-9]{1,12}\.[0-9]{1,3}(?![0-9.])|[0-9]{1,15}(?![0-9.]))")
_STRING = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_TOKEN = re.compile(r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*")
_BYTES = re.compile(r":[A-Za-z0-9+/=]*:")
_BOOLEAN = re.compile(r"\?([01])")
_DATE = re.compile(r"@-?[0-9]{1,15}(?![0-9.])")
_DISPLAY = re.compile(r'%"(?:[ !#$&-~]|%[0-9a-f]{2})*"')
_BLANK = re.compile(r"[ \t]*")

Value = bool | int | float | str | None
"""None stands for what no directive has: bytes, dates, inner lists."""


class MalformedError(ValueError):
    """Not a dictionary."""


def dictionary(text: str) -> dict[str, Value]:
    """The members of a dictionary, without parameters; a key alone is True.

    Tokens and strings look the same: neither is what a directive with a number wants.

    Raises MalformedError.
    """
    reader = _Reader(text.strip(" "))
    members: dict[str, Value] = {}
    while not reader.ended():
        key = reader.take(_KEY)
        members[key] = reader.member() if reader.skip("=") else True
        reader.parameters()
        reader.take(_BLANK)
        if reader.ended():
            break
        reader.demand(",")
        reader.take(_BLANK)
        if reader.ended():
            raise MalformedError("a comma at the end")
    return members


class _Reader:
    """Reads a field from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def ended(self) -> bool:
        return self._at >= len(self._text)

    def take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise MalformedError(f"something else at {self._at}")
        self._at = match.end()
        return match.group()

    def skip(self, letter: str) -> bool:
        if self._text[self._at : self._at + 1] != letter:
            return False
        self._at += 1
        return True

    def demand(self, letter: str) -> None:
        if not self.skip(letter):
            raise MalformedError(f"no {letter} at {self._at}")

    def member(self) -> Value:
        if not self.skip("("):
            return self._item()
        self._inner_list()
        return None

    def parameters(self) -> None:
        while self.skip(";"):
            while self.skip(" "):
                pass
            self.take(_KEY)
            if self.skip("="):
                self._item()

    def _inner_list(self) -> None:
        while True:
            while self.skip(" "):
                pass
            if self.skip(")"):
                return
            self._item()
            self.parameters()
            if self._text[self._at : self._at + 1] not in {" ", ")"}:
                raise MalformedError(f"no space at {self._at}")

    def _item(self) -> Value:
        first = self._text[self._at : self._at + 1]
        if first == '"':
            return self.take(_STRING)[1:-1]
        if first == "?":
            return self.take(_BOOLEAN) == "?1"
        if first in {"@", ":", "%"}:
            self.take({"@": _DATE, ":": _BYTES, "%": _DISPLAY}[first])
            return None
        if first == "-" or (first.isascii() and first.isdigit()):
            number = self.take(_NUMBER)
            return float(number) if "." in number else int(number)
        return self.take(_TOKEN)
