"""Requests that no client should send, by seeded chance: HTTP/1.1 as bytes, family by family.

Grammar that is broken here: RFC 9112 (messages, framing), RFC 3986 (targets), RFC 9110 (fields).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tests.support import malformed_words as words

SMUGGLED = b"/smuggled-by-framing"
"""The path of a request inside a body."""


@dataclass(frozen=True, slots=True)
class Case:
    """One connection's worth of bytes."""

    family: str
    pieces: Sequence[bytes]
    """Sent one after the other, each by itself."""
    ending: str
    """``finish`` (half-close, read to the end), ``wait`` (read to the end) or ``reset``."""


@dataclass(frozen=True, slots=True)
class Target:
    """What there is at the server, to be near the truth when lying."""

    paths: Sequence[str]
    """Paths with their open places filled in, of every route."""
    objects: Sequence[str]
    """Those of them that lead to something."""
    methods: Sequence[str]
    credential: str


class Malformed:
    """Makes cases; the same ones for the same seed."""

    def __init__(self, dice: random.Random, target: Target) -> None:
        self._dice = dice
        self._one = dice.choice
        self._target = target
        self._families: tuple[Callable[[], bytes], ...] = (
            self.request_line,
            self.header_bytes,
            self.framing,
            self.chunks,
            self.oversized,
            self.targets,
            self.queries,
            self.conditions,
            self.nearly_right,
            self.mutated,
            self.pipeline,
            self.noise,
        )

    def case(self, number: int) -> Case:
        """The case of a number; families come by turns."""
        family = self._families[number % len(self._families)]
        data = family()
        if self._dice.random() < 0.12:
            data = data[: self._dice.randrange(len(data) + 1)]
        ending = self._dice.choices(("finish", "wait", "reset"), (25, 67, 8))[0]
        return Case(family.__name__, self._pieces(data), ending)

    def request_line(self) -> bytes:
        """A first line of wrong parts."""
        method = self._one((*self._target.methods, *words.METHODS))
        gap, other = self._one((" ", " ", "  ", "\t", "", "\x0b")), self._one((" ", " ", "\x00"))
        line = f"{method}{gap}{self._path()}{other}{self._one(words.VERSIONS)}".encode("latin-1")
        return line + self._one(words.BREAKS) + self._fields() + b"\r\n"

    def header_bytes(self) -> bytes:
        """Fields with bytes that do not belong there."""
        lines = [
            self._one((*words.BAD_NAMES, self._dice.randbytes(5)))
            + self._one((b": ", b":", b" : ", b"", b"\x00: "))
            + self._one((*words.BAD_VALUES, self._dice.randbytes(20)))
            + self._one(words.BREAKS)
            for _ in range(self._dice.randrange(1, 6))
        ]
        return self._start() + self._fields() + b"".join(lines) + b"\r\n"

    def framing(self) -> bytes:
        """Lengths that contradict each other, with a request in the body."""
        inner = b"GET " + SMUGGLED + b" HTTP/1.1\r\nHost: e\r\n\r\n"
        lines = []
        for _ in range(self._dice.randrange(2, 4)):
            name = self._one(words.FRAMING_FIELDS)
            value = self._one(words.LENGTHS if "ength" in name else words.CODINGS)
            lines.append(f"{name}{self._one((': ', ':', ': '))}{value}\r\n".encode("latin-1"))
        if self._dice.random() < 0.5:
            lines += [b"Content-Length: %d\r\n" % len(inner), b"Transfer-Encoding: chunked\r\n"]
        self._dice.shuffle(lines)
        chunked = b"0\r\n\r\n" if self._dice.random() < 0.5 else b""
        return self._start() + self._fields() + b"".join(lines) + b"\r\n" + chunked + inner

    def chunks(self) -> bytes:
        """A chunked body of garbage."""
        head = self._start("POST") + self._fields() + b"Transfer-Encoding: chunked\r\n\r\n"
        parts = [
            self._one(words.CHUNK_SIZES)
            + self._one(words.BREAKS)
            + b"abcde"
            + self._one(words.BREAKS)
            for _ in range(self._dice.randrange(1, 5))
        ]
        end = self._one((b"\r\n", b"", b"\0"))
        return head + b"".join(parts) + b"0\r\n" + self._one(words.TRAILERS) + end

    def oversized(self) -> bytes:
        """Heads that are too long in one way or the other."""
        size = self._one((4_000, 20_000, 65_000, 70_000, 150_000))
        kind = self._dice.randrange(4)
        if kind == 0:
            return self._start(path="/" + "a" * size) + self._fields() + b"\r\n"
        if kind == 1:
            return self._start() + b"x-long: " + b"v" * size + b"\r\n\r\n"
        if kind == 2:
            return self._start() + b"n" * size + b": v\r\n\r\n"
        return self._start() + self._fields() + b"a: b\r\n" * (size // 6) + b"\r\n"

    def targets(self) -> bytes:
        """Targets of other forms, and paths that try to get out."""
        path = self._path()
        near = (
            f"http://edge{path}",
            f"https://other:99{path}",
            "//" + path,
            path + "/",
            "/;" + path,
        )
        bent = (path.replace("/", "//"), path.replace("/", "%2f"), path.replace("/", "\\"))
        more = (path + "%00", path + "#part", path + ";a=b", path.upper(), path.replace("a", "%61"))
        odd = self._one((*words.ODD_TARGETS, *near, *bent, *more))
        return self._start(path=odd) + self._fields() + b"\r\n"

    def queries(self) -> bytes:
        """Queries of every route."""
        pairs = (
            f"{self._one(words.QUERY_NAMES)}={self._one(words.QUERY_VALUES)}"
            for _ in range(self._one((1, 2, 5, 150)))
        )
        query = self._one(("&", ";", "&&")).join(pairs)
        start = self._start(path=f"{self._path()}?{query}")
        return start + self._fields() + b"Content-Length: 0\r\n\r\n"

    def conditions(self) -> bytes:
        """Fields that mean something, with values that do not."""
        lines = [
            f"{self._one(words.FIELDS)}: {self._one(words.FIELD_VALUES)}\r\n".encode("latin-1")
            for _ in range(self._dice.randrange(1, 5))
        ]
        lengths = (b"\r\n", b"Content-Length: 3\r\n\r\nabc", b"Content-Length: 9\r\n\r\nab")
        start = self._start()
        if self._dice.random() < 0.7:
            start = self._start(self._one(("GET", "GET", "HEAD", "PUT")), self._object())
        return start + self._fields() + b"".join(lines) + self._one(lengths)

    def nearly_right(self) -> bytes:
        """A right request for an object but for one field, which may even be right."""
        name, value = self._one(
            (
                ("Range", self._one(words.RANGES)),
                ("If-None-Match", self._one(("*", '"', "W/", '"x"'))),
                (self._one(words.FIELDS), self._one(words.FIELD_VALUES)),
            )
        )
        fields = f"Host: e\r\nX-API-Key: {self._target.credential}\r\n{name}: {value}\r\n"
        start = self._start(self._one(("GET", "HEAD")), self._object())
        return start + fields.encode("latin-1") + b"Connection: close\r\n\r\n"

    def mutated(self) -> bytes:
        """A right request with some bytes changed."""
        data = bytearray(self._right())
        for _ in range(self._dice.randrange(1, 6)):
            at = self._dice.randrange(len(data))
            kind = self._dice.randrange(4)
            if kind == 0:
                data[at] = self._dice.randrange(256)
            elif kind == 1:
                del data[at : at + self._dice.randrange(1, 8)]
            elif kind == 2:
                data[at:at] = self._dice.randbytes(self._dice.randrange(1, 8))
            else:
                data[at:at] = data[self._dice.randrange(len(data)) :][:40]
            data = data or bytearray(b"\r\n")
        return bytes(data)

    def pipeline(self) -> bytes:
        """Several requests at once, right and wrong ones."""
        others = (self.mutated, self.targets, self.queries, self._right, self._right, self.noise)
        return b"".join(self._one(others)() for _ in range(self._dice.randrange(2, 9)))

    def noise(self) -> bytes:
        """What is not HTTP/1 at all."""
        noise = self._dice.randbytes(self._dice.randrange(1, 600))
        return self._one((noise, self._one(words.NOT_HTTP) + noise[:64]))

    def _right(self) -> bytes:
        return self._start() + self._fields() + b"Content-Length: 0\r\n\r\n"

    def _start(self, method: str = "", path: str | None = None) -> bytes:
        method = method or self._one(self._target.methods)
        path = self._path() if path is None else path
        return f"{method} {path} HTTP/1.1\r\n".encode("latin-1", "replace")

    def _fields(self) -> bytes:
        lines = [b"Host: edge\r\n"]
        if self._dice.random() < 0.7:
            lines.append(f"Authorization: Bearer {self._target.credential}\r\n".encode())
        if self._dice.random() < 0.4:
            lines.append(b"Connection: close\r\n")
        return b"".join(lines)

    def _path(self) -> str:
        return self._object() if self._dice.random() < 0.3 else self._one(self._target.paths)

    def _object(self) -> str:
        return self._one(self._target.objects)

    def _pieces(self, data: bytes) -> list[bytes]:
        """The data as it is sent: mostly at once, sometimes in parts or byte by byte."""
        roll = self._dice.random()
        if roll < 0.8 or len(data) < 2:
            return [data]
        if roll < 0.95:
            at = self._dice.randrange(1, len(data))
            return [data[:at], data[at:]]
        return [data[n : n + 1] for n in range(60)] + [data[60:]]
