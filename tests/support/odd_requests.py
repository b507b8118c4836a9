"""Requests for objects by chance: sensible, broken and absurd, as Hypothesis strategies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
Line = tuple[str, str]

OWN = '"<own>"'
"""Stands for the tag of the resource that is asked for."""

VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
LETTERS = st.characters(codec="latin-1", exclude_characters="\x7f", min_codepoint=0x20)


@dataclass(frozen=True, slots=True)
class OddRequest:
    """A request; ``resource`` is an index, None for what does not exist."""

    method: str
    resource: int | None
    fields: tuple[tuple[str, str], ...]
    has_key: bool

    def fields_for(self, tag: str) -> tuple[tuple[str, str], ...]:
        """The fields for a server on which the resource has this tag, quotes included."""
        return tuple((name, value.replace(OWN, tag)) for name, value in self.fields)


def requests(sizes: Sequence[int]) -> st.SearchStrategy[OddRequest]:
    """Requests for one of several resources of these sizes, seldom for a tiny one."""
    usual = [place for place, size in enumerate(sizes) if size > 3]
    places = st.sampled_from([*usual, *usual, *range(len(sizes))])
    return places.flatmap(lambda place: _requests_for(place, sizes[place]))


@st.composite
def _requests_for(draw: st.DrawFn, place: int, size: int) -> OddRequest:
    lines = draw(_lines(size)) + draw(st.lists(_BYSTANDERS, max_size=2))
    return OddRequest(
        draw(_METHODS),
        draw(_mostly(place, None)),
        tuple((draw(_spelled(name)), value) for name, value in draw(st.permutations(lines))),
        draw(_mostly(True, False)),
    )


def _lines(size: int) -> st.SearchStrategy[list[Line]]:
    """What the answer depends on: one field, some that go together, or anything."""
    several = _several_ranges(size) if size > 3 else _ranges(size)
    one = st.one_of(several, _ranges(size), _conditions())
    sensible = st.one_of(several, _ranges(size))
    return st.one_of(
        st.lists(one, min_size=1, max_size=1),
        st.tuples(sensible, _if_range()).map(list),
        st.tuples(sensible, _if_match()).map(list),
        st.tuples(_if_match(), _if_match()).map(list),
        st.lists(st.one_of(one, _conditions()), max_size=4),
    )


def _mostly(usual: T, other: T) -> st.SearchStrategy[T]:
    return st.sampled_from([usual] * 19 + [other])


def _spelled(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from([name, name.lower(), name.upper()])


_METHODS = st.sampled_from(
    ["GET"] * 36 + ["HEAD"] * 6 + ["OPTIONS", "POST", "PUT", "PATCH", "TRACE", "SEARCH"]
)
_BYSTANDERS = st.sampled_from(
    [
        ("Accept", "*/*"),
        ("Accept", "application/pdf;q=1, */*;q=0"),
        ("Accept-Encoding", "gzip, deflate, br, zstd"),
        ("Accept-Encoding", "identity;q=0"),
        ("Accept-Language", "de-AT, en;q=0.3"),
        ("Cache-Control", "no-cache"),
        ("Cache-Control", "no-store, max-age=0"),
        ("Cache-Control", "only-if-cached"),
        ("Pragma", "no-cache"),
        ("Cookie", "a=b; c=d"),
        ("Referer", "https://app.example/"),
        ("User-Agent", "odd/1.0 (caf\xe9)"),
        ("Origin", "https://app.example"),
        ("Sec-Fetch-Mode", "cors"),
        ("Want-Repr-Digest", "sha-256=10"),
        ("Want-Repr-Digest", "sha-512=3, sha-256=0"),
        ("Want-Content-Digest", "sha-256=1"),
        ("Want-Content-Digest", "sha-256"),
        ("X-Forwarded-For", "192.0.2.1"),
        ("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("X-Request-Id", "from the test"),
    ]
)

# Preconditions.

_SEPARATORS = st.sampled_from([",", ", ", " , ", ",,", ", ,", " ", ""])
_TAGS = st.sampled_from(
    [
        *(OWN, OWN, OWN, f"W/{OWN}", '"other"', 'W/"other"', '""', '"a,b"', '"caf\xe9"', '"<own>'),
        *("*", "<own>", "unquoted", f"w/{OWN}", f"W/ {OWN}", '"a b"', f"x{OWN}", f"{OWN}x", ""),
    ]
)
_GOOD_TAGS = st.sampled_from([OWN, f"W/{OWN}", '"other"', 'W/"other"', '"a,b"', '""'])
_DATES = st.sampled_from(
    [
        "Sat, 29 Oct 1994 19:43:31 GMT",
        "Saturday, 29-Oct-94 19:43:31 GMT",
        "Sat Oct 29 19:43:31 1994",
        "Fri, 31 Dec 2100 23:59:59 GMT",
        "Thu, 32 Foo 1994 19:43:31 GMT",
        "0",
        "",
    ]
)


def _joined(elements: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    """Elements with something between them, which a list may have, or not."""
    pairs = st.lists(st.tuples(elements, _SEPARATORS), min_size=1, max_size=most)
    return pairs.map(lambda all_of: "".join(map("".join, all_of)))


_TAG_LISTS = st.one_of(
    st.lists(_GOOD_TAGS, min_size=1, max_size=4).map(", ".join),
    st.sampled_from([OWN, f"W/{OWN}", "*", '"other"']),
    _joined(_TAGS, 4),
    st.text(LETTERS, max_size=20),
)


def _if_match() -> st.SearchStrategy[Line]:
    return st.tuples(st.sampled_from(["If-None-Match", "If-Match"]), _TAG_LISTS)


def _if_range() -> st.SearchStrategy[Line]:
    return st.tuples(st.just("If-Range"), st.one_of(st.just(OWN), _TAGS, _DATES))


def _conditions() -> st.SearchStrategy[Line]:
    dates = st.sampled_from(["If-Modified-Since", "If-Unmodified-Since"])
    return st.one_of(_if_match(), _if_range(), st.tuples(dates, _DATES))


# Ranges.


def _positions(size: int) -> st.SearchStrategy[str]:
    around = [0, 1, size // 2, max(0, size - 1), size, size + 1, 10**9, 10**18, 10**30]
    numbers = st.one_of(st.integers(0, size + 2), st.sampled_from(around))
    return st.one_of(numbers.map(str), numbers.map(lambda number: f"00{number}"))


def _several_ranges(size: int) -> st.SearchStrategy[Line]:
    """Two to six ranges that do not meet, in any order."""
    ends = st.lists(st.integers(0, size - 1), min_size=4, max_size=12, unique=True).map(sorted)
    texts = ends.map(
        lambda found: [f"{a}-{b}" for a, b in zip(found[::2], found[1::2], strict=False)]
    )
    return texts.flatmap(st.permutations).map(lambda each: ("Range", "bytes=" + ", ".join(each)))


def _ranges(size: int) -> st.SearchStrategy[Line]:
    position = _positions(size)
    one = st.one_of(
        st.tuples(st.integers(0, size), st.integers(0, size)).map(
            lambda pair: f"{min(pair)}-{max(pair)}"
        ),
        st.tuples(position, position).map("-".join),
        position.map(lambda first: f"{first}-"),
        position.map(lambda length: f"-{length}"),
    )
    broken = st.sampled_from(["-", "", "x", "1", "1-2-3", "+1-2", "1 -2", "1- 2", "0x1-2", "--1"])
    several = st.lists(one, min_size=1, max_size=6).map(",".join)
    many = st.lists(one, min_size=62, max_size=68).map(",".join)
    texts = st.one_of(one, one, several, several, many, _joined(one | broken, 5))
    unit = st.sampled_from(["bytes="] * 9 + ["Bytes=", "bytes= ", "bytes =", "items=", "bytes"])
    odd = st.one_of(st.text(LETTERS, max_size=12), st.text("bytes=0123-, \t", max_size=16))
    values = st.one_of(
        st.tuples(unit, texts).map("".join), st.tuples(unit, texts).map("".join), odd
    )
    return st.tuples(st.just("Range"), values)
