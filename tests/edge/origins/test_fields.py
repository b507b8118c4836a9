"""Header fields, read as their grammars say."""

from __future__ import annotations

import pytest

from services.edge.origins.fields import (
    MOST_SECONDS,
    date_text,
    directives,
    end_to_end,
    http_date,
    seconds,
    split_list,
)
from services.edge.origins.structured import MalformedError, Value, dictionary


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, []),
        ("", []),
        (", ,", []),
        ("a", ["a"]),
        (" a ,b,, c", ["a", "b", "c"]),
        ('a="b, c", d', ['a="b, c"', "d"]),
        (r'a="b\", c", d', [r'a="b\", c"', "d"]),
        ('"a, b', ['"a', "b"]),
        (r"a\, b", ["a\\", "b"]),
        (r"a\", b", [r"a\"", "b"]),
        (r'"a\", b', [r'"a\"', "b"]),
        # Would take hours if the end were looked for from every quote.
        ('"' + '\\"' * 1_000_000, ['"' + '\\"' * 1_000_000]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_lists_are_parted_at_commas_outside_quotes(text: str | None, expected: list[str]) -> None:
    assert split_list(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("max-age=1, No-Store", {"max-age": "1", "no-store": None}),
        ('private="a, b", x', {"private": "a, b", "x": None}),
        ("max-age=1, max-age=2", {"max-age": "1"}),
        ('extension="max-age=3600", max-age=1', {"extension": "max-age=3600", "max-age": "1"}),
        ("max-age =1", {}),
        ("=1, (", {}),
    ],
)
def test_directives_are_read_by_name(text: str, expected: dict[str, str | None]) -> None:
    assert directives(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("007", 7),
        ("2147483648", MOST_SECONDS),
        ("9" * 5000, MOST_SECONDS),
        ("-1", None),
        ("1.5", None),
        ("", None),
        ("1 2", None),
        ("\u0661", None),
    ],
)
def test_seconds_are_digits(text: str, expected: int | None) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "SUN, 06 nov 1994 08:49:37 gmt",
    ],
)
def test_dates_have_three_formats(text: str) -> None:
    moment = http_date(text)
    assert moment == 784_111_777
    assert date_text(moment) == b"Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "Sun, 06 Nov 1994 08:49:37 UTC",
        "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 94 08:49:37 GMT",
        "Sun 06 Nov 1994 08:49:37 GMT",
        "Sun, 06  Nov  1994 08:49:37 GMT",
        "Sun, 06-Nov-1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 8:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Foo 1994 08:49:37 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
    ],
)
def test_what_is_no_date_is_none(text: str) -> None:
    assert http_date(text) is None


def test_fields_of_the_connection_and_those_that_it_names_stop() -> None:
    fields = [
        (b"connection", b"X-Hop, close, cache-control"),
        (b"x-hop", b"1"),
        (b"cache-control", b"no-store"),
        (b"transfer-encoding", b"chunked"),
        (b"upgrade", b"h2c"),
        (b"te", b"trailers"),
        (b"x-end", b"1"),
    ]
    assert end_to_end(fields) == [(b"cache-control", b"no-store"), (b"x-end", b"1")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("max-age=60", {"max-age": 60}),
        ("a, b=?0, c=?1", {"a": True, "b": False, "c": True}),
        ('a=1;x=2;y, b="s", c=tok/en', {"a": 1, "b": '"s'[1:], "c": "tok/en"}),
        ("a=1.5, b=-2", {"a": 1.5, "b": -2}),
        ("a=(1 2;x);y, b=:aGk=:, c=@1659578233", {"a": None, "b": None, "c": None}),
        ("a=1, a=2", {"a": 2}),
        ("a=1 \t,\t b", {"a": 1, "b": True}),
    ],
)
def test_dictionaries_are_read(text: str, expected: dict[str, Value]) -> None:
    assert dictionary(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "max-age=60,",
        "max-age=60, &&&&&",
        "MaX-aGe=60",
        "max-age =60",
        "max-age= 60",
        "a=1.",
        "a=1.2345",
        "a=9999999999999999",
        'a="open',
        "a=(1 2",
        "a=?2",
        "a=(1 (2))",
        "a b",
        "a=\u00e4",
    ],
)
def test_what_is_no_dictionary_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        dictionary(text)
