"""Tables over a tree read as a simple map reads to which the same was written."""

from __future__ import annotations

import random

import pytest

from services.store.engines.redo import memtable
from services.store.engines.redo.memtable import LongRead, MemTable, View, sorted_keys
from services.store.engines.redo.records import Changes
from services.store.engines.redo.stack import Stack
from tests.support.seeds import chosen_seed
from tests.support.store_model import Model

COURSES = 300


@pytest.fixture
def few_keys_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is sorted and joined all the time."""
    monkeypatch.setattr(memtable, "_SCANNED_KEYS", 3)
    monkeypatch.setattr(memtable, "_SORTED_AT_ONCE", 4)


def some_key(dice: random.Random) -> bytes:
    return bytes([dice.randrange(97, 100), dice.randrange(97, 105)])


def some_changes(dice: random.Random, truth: Model) -> Changes:
    """What a commit writes, which ``truth`` gets too."""
    changes = Changes([], {})
    for _ in range(dice.choice((0, 0, 1, 2))):
        begin, end = sorted((some_key(dice), some_key(dice)))
        changes.clears.append((begin, end))
        truth.clear_range(begin, end)
    for _ in range(dice.randrange(6)):
        key = some_key(dice)
        value = None if dice.random() < 0.3 else dice.randbytes(2)
        changes.values[key] = value
        if value is None:
            truth.clear(key)
        else:
            truth.set(key, value)
    return changes


def some_tree(dice: random.Random, truth: Model) -> Model:
    tree = Model()
    for _ in range(dice.randrange(30)):
        key, value = some_key(dice), dice.randbytes(2)
        tree.set(key, value)
        truth.set(key, value)
    return tree


def check(dice: random.Random, tables: tuple[MemTable, ...], tree: Model, truth: Model) -> None:
    view = View(tables, tree)
    for _ in range(4):
        begin, end, limit = some_key(dice), some_key(dice), dice.randrange(5)
        reverse = dice.random() < 0.5
        found = view.range(begin, end, limit=limit, reverse=reverse)
        assert found == truth.range(begin, end, limit=limit, reverse=reverse)
    assert view.range(b"", b"\xff") == truth.range(b"", b"\xff")
    keys = [some_key(dice) for _ in range(3)]
    assert view.get_many(keys) == truth.get_many(keys)


@pytest.mark.usefixtures("few_keys_are_many")
def test_a_stack_reads_as_one_map_whenever_it_is_shared_frozen_or_written_to_the_tree() -> None:
    seed = chosen_seed()
    for course in range(COURSES):
        dice = random.Random(seed + course)
        truth = Model()
        tree = some_tree(dice, truth)
        stack = Stack()
        kept: list[tuple[tuple[MemTable, ...], Model, Model]] = []
        for version in range(dice.randrange(1, 25)):
            stack.absorb(some_changes(dice, truth))
            step = dice.random()
            if step < 0.2:
                kept.append((stack.share(), copied(tree), copied(truth)))
            elif step < 0.3 and stack.frozen is None:
                stack.turn(version)
            elif step < 0.4 and stack.frozen is not None:
                assert stack.frozen_version <= version
                write(stack.frozen, tree)
                stack.drop()
            check(dice, stack.tables, tree, truth)
        for tables, earlier_tree, earlier in kept:  # a thread goes on reading the state it began in
            check(dice, tables, earlier_tree, earlier)


def write(table: MemTable, tree: Model) -> None:
    """As a checkpoint does."""
    for begin, end in table.clears:
        tree.clear_range(begin, end)
    keys = sorted_keys(table, lambda: None)
    assert keys == sorted(table.values)
    for key in keys:
        value = table.values[key]
        if value is None:
            tree.clear(key)
        else:
            tree.set(key, value)


def copied(model: Model) -> Model:
    copy = Model()
    for key, value in model.range(b"", b"\xff"):
        copy.set(key, value)
    return copy


def test_a_range_with_many_written_keys_is_a_long_read_only_where_that_was_asked() -> None:
    table = MemTable()
    table.absorb(Changes([], {b"%04d" % number: b"" for number in range(200)}))
    assert len(View((table,), Model()).range(b"", b"\xff")) == 200
    quick = View((table,), Model(), longest=100)
    assert len(quick.range(b"", b"\xff", limit=5)) == 5
    assert len(quick.range(b"0000", b"0090")) == 90
    with pytest.raises(LongRead):
        quick.range(b"", b"\xff")


def test_threads_that_read_often_leave_few_tables() -> None:
    stack = Stack()
    for number in range(1_000):
        stack.absorb(Changes([], {b"%04d" % number: b"v"}))
        assert len(stack.share()) <= 11
    assert len(View(stack.tables, Model()).range(b"", b"\xff")) == 1_000
