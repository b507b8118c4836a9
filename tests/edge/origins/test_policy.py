"""The rules of RFC 9111 as tables: what is stored, how long it is fresh, when it may be reused."""

from __future__ import annotations

import pytest

from services.edge.origins.fields import Fields, date_text, directives
from services.edge.origins.freshness import (
    Clock,
    Defaults,
    Reuse,
    initial_age,
    lifetime,
    on_error,
    reuse,
    rules_of,
)
from services.edge.origins.invalidation import invalidated
from services.edge.origins.storing import may_store, storable_fields
from services.edge.origins.validation import (
    conditions,
    freshened,
    not_modified,
    range_applies,
    still_holds,
    tells_of,
)
from services.edge.origins.vary import matches, selecting

MEBIBYTE = 1024 * 1024
NOW = 1_700_000_000.0
DEFAULTS = Defaults(heuristic_s=1000, negative_s=5, stale_if_error_s=60)


def at(delta: float) -> str:
    """A date so many seconds from now."""
    return date_text(NOW + delta).decode()


def fields(**values: str) -> Fields:
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.mark.parametrize(
    ("status", "said", "seconds", "explicit"),
    [
        (200, fields(cache_control="max-age=60"), 60, True),
        (200, fields(cache_control="max-age=60, s-maxage=10"), 10, True),
        (200, fields(cache_control="s-maxage=0, max-age=60"), 0, True),
        (200, fields(cache_control="max-age=60", expires=at(-100)), 60, True),
        (200, fields(cache_control="max-age=-60"), 0, True),
        (200, fields(cache_control="max-age='60'"), 0, True),
        (200, fields(cache_control='max-age="60"'), 60, True),
        (200, fields(expires=at(60), date=at(0)), 60, True),
        (200, fields(expires=at(60), date=at(-10)), 70, True),
        (200, fields(expires=at(60), date=at(100)), 0, True),
        (200, fields(expires=at(60)), 60, True),
        (200, fields(expires="0", date=at(0)), 0, True),
        (200, fields(expires=at(60), cache_control="max-age=x"), 0, True),
        (200, fields(cdn_cache_control="max-age=5", cache_control="max-age=60"), 5, True),
        (200, fields(cdn_cache_control="max-age=5, &", cache_control="max-age=60"), 60, True),
        (200, fields(cdn_cache_control='max-age="5"', cache_control="max-age=60"), 60, True),
        (200, fields(cdn_cache_control="", cache_control="max-age=60"), 60, True),
        (200, fields(tollmesh_cache_control="max-age=7", cdn_cache_control="max-age=5"), 7, True),
        (200, fields(cdn_cache_control="public", expires=at(60)), 0, False),
        (200, fields(last_modified=at(-100), date=at(0)), 10, False),
        (200, fields(last_modified=at(-1_000_000), date=at(0)), 1000, False),
        (200, fields(last_modified=at(100), date=at(0)), 0, False),
        (200, fields(), 0, False),
        (201, fields(last_modified=at(-100), date=at(0)), 0, False),
        (599, fields(last_modified=at(-100), date=at(0), cache_control="public"), 10, False),
        (404, fields(), 5, False),
        (404, fields(cache_control="max-age=0"), 0, True),
        (403, fields(), 0, False),
    ],
)
def test_freshness_lifetime(status: int, said: Fields, seconds: float, explicit: bool) -> None:
    found = lifetime(status, said, rules_of(said), NOW, DEFAULTS)
    assert (found.seconds, found.explicit) == (seconds, explicit)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (fields(date=at(0)), 3),  # asked 3 s ago, arrived now; counted from the asking
        (fields(date=at(-10)), 10),
        (fields(date=at(-10), age="2"), 10),
        (fields(date=at(-1), age="20"), 23),
        (fields(date=at(50), age="20"), 23),
        (fields(age="20, 5"), 23),
        (fields(age="abc"), 3),
        (fields(age="-7"), 3),
        (fields(age="7.0"), 3),
        (fields(age="99999999999999999999"), 2**31 + 3),
    ],
)
def test_initial_age(said: Fields, expected: float) -> None:
    assert initial_age(said, NOW - 3, NOW) == expected


@pytest.mark.parametrize(
    ("said", "age", "fresh_for", "asked", "expected"),
    [
        ("", 5, 10, "", Reuse.AS_IS),
        ("", 15, 0, "", Reuse.AFTER_VALIDATION),
        ("", 15, -1, "", Reuse.AFTER_VALIDATION),
        ("no-cache", 5, 10, "", Reuse.AFTER_VALIDATION),
        ('no-cache="set-cookie"', 5, 10, "", Reuse.AS_IS),
        ("", 5, 10, "no-cache", Reuse.AFTER_VALIDATION),
        ("immutable", 5, 10, "", Reuse.AS_IS),
        ("must-revalidate", 5, 10, "", Reuse.AS_IS),
        ("", 5, 10, "max-age=5", Reuse.AS_IS),
        ("", 5, 10, "max-age=4", Reuse.AFTER_VALIDATION),
        ("", 5, 10, "max-age=x", Reuse.AFTER_VALIDATION),
        ("", 5, 10, "min-fresh=9", Reuse.AS_IS),
        ("", 5, 10, "min-fresh=11", Reuse.AFTER_VALIDATION),
        ("", 15, -5, "max-stale", Reuse.AS_IS),
        ("", 15, -5, "max-stale=5", Reuse.AS_IS),
        ("", 15, -5, "max-stale=4", Reuse.AFTER_VALIDATION),
        ("must-revalidate", 15, -5, "max-stale", Reuse.AFTER_VALIDATION),
        ("proxy-revalidate", 15, -5, "max-stale", Reuse.AFTER_VALIDATION),
        ("s-maxage=10", 15, -5, "max-stale", Reuse.AFTER_VALIDATION),
        ("stale-while-revalidate=6", 15, -5, "", Reuse.WHILE_REVALIDATING),
        ("stale-while-revalidate=5", 15, -5, "", Reuse.AFTER_VALIDATION),
        ("s-maxage=10, stale-while-revalidate=6", 15, -5, "", Reuse.WHILE_REVALIDATING),
        ("must-revalidate, stale-while-revalidate=6", 15, -5, "", Reuse.AFTER_VALIDATION),
        ("stale-while-revalidate=6", 15, -5, "max-age=10", Reuse.AFTER_VALIDATION),
    ],
)
def test_reuse(said: str, age: float, fresh_for: float, asked: str, expected: Reuse) -> None:
    rules = rules_of(fields(cache_control=said))
    assert reuse(rules, Clock(age, fresh_for), directives(asked)) is expected


@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        ("", "", True),
        ("stale-if-error=20", "", True),
        ("stale-if-error=5", "", False),
        ("must-revalidate, stale-if-error=20", "", False),
        ("no-cache, stale-if-error=20", "", False),
        ("s-maxage=1", "", False),
        ("s-maxage=1, stale-if-error=20", "", True),
        ("", "stale-if-error=5", False),
        ("stale-if-error=20", "stale-if-error=5", True),
    ],
)
def test_standing_in_for_an_error(said: str, asked: str, expected: bool) -> None:
    rules = rules_of(fields(cache_control=said))
    assert on_error(rules, Clock(20, -10), directives(asked), default_s=60) is expected


@pytest.mark.parametrize(
    ("status", "said", "asked", "authorized", "expected"),
    [
        (200, fields(cache_control="max-age=1"), "", False, True),
        (200, fields(cache_control="max-age=0"), "", False, False),
        (200, fields(cache_control="max-age=0", etag='"1"'), "", False, True),
        (200, fields(etag='"1"'), "", False, True),
        (200, fields(last_modified=at(-5)), "", False, True),
        (200, fields(), "", False, False),
        (404, fields(), "", False, True),
        (299, fields(cache_control="max-age=1"), "", False, True),
        (206, fields(cache_control="max-age=1"), "", False, False),
        (304, fields(cache_control="max-age=1"), "", False, False),
        (416, fields(cache_control="max-age=1"), "", False, False),
        (200, fields(cache_control="max-age=1, no-store"), "", False, False),
        (200, fields(cache_control="max-age=1, private"), "", False, False),
        (200, fields(cache_control='max-age=1, private="x"'), "", False, True),
        (200, fields(cache_control="max-age=1, no-cache", etag='"1"'), "", False, True),
        (200, fields(cache_control="max-age=1"), "no-store", False, False),
        (200, fields(cache_control="max-age=1, no-store, must-understand"), "", False, True),
        (599, fields(cache_control="max-age=1, no-store, must-understand"), "", False, False),
        (599, fields(cache_control="max-age=1, must-understand"), "", False, False),
        (200, fields(cache_control="max-age=1"), "", True, False),
        (200, fields(cache_control="max-age=1, public"), "", True, True),
        (200, fields(cache_control="s-maxage=1"), "", True, True),
        (200, fields(cache_control="max-age=1, must-revalidate"), "", True, True),
        (200, fields(cdn_cache_control="max-age=1", cache_control="no-store"), "", False, True),
        (200, fields(cdn_cache_control="no-store", cache_control="max-age=1"), "", False, False),
        (200, fields(cdn_cache_control="private", expires=at(60)), "", False, False),
    ],
)
def test_storing(status: int, said: Fields, asked: str, authorized: bool, expected: bool) -> None:
    rules = rules_of(said)
    fresh = lifetime(status, said, rules, NOW, DEFAULTS)
    found = may_store(status, said, rules, fresh, asked=directives(asked), authorized=authorized)
    assert found is expected


def test_private_fields_are_not_stored() -> None:
    said = fields(cache_control='private="X-Secret, x-other"', x_secret="1", x_end="2")
    kept = [name for name, _ in storable_fields(said, rules_of(said))]
    assert kept == [b"cache-control", b"x-end"]


@pytest.mark.parametrize(
    ("vary", "first", "second", "expected"),
    [
        ("Foo", fields(foo="1"), fields(foo="1"), True),
        ("Foo", fields(foo="1"), fields(foo="2"), False),
        ("Foo", fields(foo="1"), fields(), False),
        ("Foo", fields(), fields(foo="1"), False),
        ("Foo", fields(), fields(), True),
        ("foo, BAR", fields(foo="1", bar="2"), fields(bar="2", foo="1"), True),
        ("foo, BAR", fields(foo="1", bar="2"), fields(bar="3", foo="1"), False),
        ("Foo", fields(foo="1, 2"), [(b"foo", b"1"), (b"foo", b"2")], True),
        ("Foo", fields(foo="1,2"), fields(foo=" 1 ,  2 "), True),
        ("Foo", fields(foo="1, 2"), fields(foo="2, 1"), False),
        ("Foo", fields(foo="a"), fields(foo="A"), False),
        (
            "Accept-Language",
            fields(accept_language="en, de"),
            fields(accept_language="DE,en"),
            True,
        ),
        (
            "Accept-Language",
            fields(accept_language="en"),
            fields(accept_language="en;q=0.5"),
            False,
        ),
    ],
)
def test_variants(vary: str, first: Fields, second: Fields, expected: bool) -> None:
    selected = selecting(fields(vary=vary), first)
    assert selected is not None
    assert matches(selected, second) is expected


MANY = ", ".join(f"x-{number}" for number in range(33))


@pytest.mark.parametrize("vary", ["*", "*, Foo", "Foo, *", ", *", MANY])
def test_a_star_matches_nothing(vary: str) -> None:
    assert selecting(fields(vary=vary), fields(foo="1")) is None


@pytest.mark.parametrize(
    ("asked", "stored", "expected"),
    [
        (fields(if_none_match='"a"'), fields(etag='"a"'), True),
        (fields(if_none_match='W/"a"'), fields(etag='"a"'), True),
        (fields(if_none_match='"a"'), fields(etag='W/"a"'), True),
        (fields(if_none_match='"b", "a"'), fields(etag='"a"'), True),
        (fields(if_none_match='"a,b"'), fields(etag='"a,b"'), True),
        (fields(if_none_match='"b"'), fields(etag='"a"'), False),
        (fields(if_none_match="*"), fields(), True),
        (fields(if_none_match='"a"'), fields(), False),
        (fields(if_none_match='"b"', if_modified_since=at(0)), fields(last_modified=at(-9)), False),
        (fields(if_modified_since=at(-9)), fields(last_modified=at(-9)), True),
        (fields(if_modified_since=at(-10)), fields(last_modified=at(-9)), False),
        (fields(if_modified_since=at(0)), fields(date=at(-9)), True),
        (fields(if_modified_since="nonsense"), fields(last_modified=at(-9)), False),
        (fields(), fields(etag='"a"'), False),
        # Would take hours if it were read again from every letter.
        (fields(if_none_match="x" + " " * MEBIBYTE + '"'), fields(etag='"a"'), False),
        (fields(if_none_match="x" * MEBIBYTE + '"'), fields(etag='"a"'), False),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_clients_conditions(asked: Fields, stored: Fields, expected: bool) -> None:
    assert not_modified(asked, stored) is expected


def test_our_conditions_are_the_stored_validators() -> None:
    stored = fields(etag='W/"a"', last_modified=at(-9), date=at(0))
    assert conditions(stored) == fields(if_none_match='W/"a"', if_modified_since=at(-9))
    assert conditions(fields(last_modified="nonsense")) == []


@pytest.mark.parametrize(
    ("if_range", "expected"),
    [
        (None, True),
        ('"a"', True),
        ('"b"', False),
        ('W/"a"', False),
        (at(-60), True),
        (at(-61), False),
        ("nonsense", False),
    ],
)
def test_if_range(if_range: str | None, expected: bool) -> None:
    stored = fields(etag='"a"', last_modified=at(-60), date=at(0))
    assert range_applies(if_range, stored) is expected


def test_a_304_changes_all_but_what_tells_of_the_bytes() -> None:
    stored = fields(etag='"a"', x="old", y="kept", content_length="5", age="9", date=at(-9))
    news = fields(etag='"a"', x="new", content_length="0", content_encoding="gzip", date=at(0))
    assert sorted(freshened(stored, news)) == sorted(
        fields(etag='"a"', x="new", y="kept", content_length="5", date=at(0))
    )
    assert tells_of(stored, news)
    assert not tells_of(stored, fields(etag='"b"'))
    assert tells_of(stored, fields())
    assert still_holds(stored, fields(etag='"a"', content_length="5"))
    assert not still_holds(stored, fields(content_length="6"))


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (200, fields(), ["/a?b"]),
        (302, fields(location="c"), ["/a?b", "/c"]),
        (
            201,
            fields(location="http://o.example/x?y#z", content_location="/v"),
            ["/a?b", "/x?y", "/v"],
        ),
        (200, fields(location="http://p.example/x"), ["/a?b"]),
        (200, fields(location="https://o.example/x"), ["/a?b"]),
        (200, fields(location="http://["), ["/a?b"]),
        (404, fields(location="/x"), []),
        (500, fields(), []),
    ],
)
def test_invalidation(status: int, said: Fields, expected: list[str]) -> None:
    assert list(invalidated(status, "http://o.example/a?b", said)) == expected
