"""Layers of writes over a snapshot read as if they were committed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.store.errors import AppendedRangeError
from services.store.layer import Deferred, Layer
from services.store.overlay import Overlay
from services.store.port import STAMP_BYTES
from tests.support.store_model import Model, random_steps, run_steps

STAMP = b"\x00" * 7 + b"\x01" + b"\x00" * 4
prefixes = st.binary(min_size=1, max_size=3).filter(lambda prefix: prefix < b"\xff")
bounds = st.binary(max_size=STAMP_BYTES + 6)


@given(st.randoms(use_true_random=False))
def test_operations_over_a_layer_read_what_a_map_would_hold(dice: random.Random) -> None:
    """Some operations are dropped, as those that raise are; the others are absorbed."""
    base, truth = Model(), Model()
    run_steps(random_steps(dice, 12), base)
    for key, value in base.range(b"", b"\xff"):
        truth.set(key, value)
    layer = Layer(base)
    for _ in range(dice.randint(1, 8)):
        steps = random_steps(dice)
        if dice.random() < 0.3:
            run_steps(steps, Overlay(layer))
            continue
        overlay = Overlay(layer)
        assert run_steps(steps, overlay) == run_steps(steps, truth)
        layer.absorb(overlay)
        assert Overlay(layer).range(b"", b"\xff") == truth.range(b"", b"\xff")
    assert _applied(layer, base) == truth.range(b"", b"\xff")


def _applied(layer: Layer, base: Model) -> list[tuple[bytes, bytes]]:
    """What an engine does with a layer."""
    for begin, end in layer.cleared:
        base.clear_range(begin, end)
    for key, value in layer.values.items():
        base.clear(key) if value is None else base.set(key, value)
    for key, delta in layer.deltas.items():
        base.add(key, delta)
    return base.range(b"", b"\xff")


@given(st.sets(prefixes, min_size=1, max_size=4), bounds, bounds)
def test_a_range_is_refused_exactly_when_an_appended_entry_may_lie_in_it(
    appended: set[bytes], begin: bytes, end: bytes
) -> None:
    layer = Layer(Model())
    for prefix in appended:
        layer.append(prefix, b"v")
    overlay = Overlay(layer)
    overlaps = begin < min(end, b"\xff") and any(
        begin <= prefix + b"\xff" * STAMP_BYTES and prefix + b"\x00" * STAMP_BYTES < end
        for prefix in appended
    )
    clearing = Overlay(layer)
    clearing.set(b"kept", b"v")
    clearing.clear_range(begin, end)
    if overlaps:
        with pytest.raises(Deferred):
            overlay.range(begin, end)
        with pytest.raises(Deferred):
            layer.absorb(clearing)
        assert not layer.values
        assert not layer.cleared
    else:
        assert overlay.range(begin, end) == []
        layer.absorb(clearing)


@given(prefixes, st.binary(max_size=3))
def test_a_key_that_an_appended_entry_may_have_is_refused(prefix: bytes, other: bytes) -> None:
    layer = Layer(Model())
    layer.append(prefix, b"v")
    with pytest.raises(Deferred):
        Overlay(layer).get(prefix + STAMP)
    assert Overlay(layer).get(prefix + STAMP + b"x" + other) is None
    for write in (("set", b"v"), ("clear",), ("add", 1)):
        overlay = Overlay(layer)
        getattr(overlay, str(write[0]))(prefix + STAMP, *write[1:])
        with pytest.raises(Deferred):
            layer.absorb(overlay)
        assert not layer.values
    own = Overlay(Model())
    own.append(prefix, b"v")
    for touch in (own.get, own.clear):
        with pytest.raises(AppendedRangeError):
            touch(prefix + STAMP)
    with pytest.raises(AppendedRangeError):
        own.get_many([b"beside", prefix + STAMP])


def test_a_deferred_operation_passes_through_handlers_of_ordinary_exceptions() -> None:
    assert not issubclass(Deferred, Exception)
