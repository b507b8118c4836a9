"""Decides whether a history of the credit service is strictly serializable, by the model.

The order of an account's mutations is that of its ledger; versions and real time must agree with
it, over all accounts, and the model, given the mutations in that order, must give each answer and
write each entry. What changes nothing (reads, replays, refusals) must be what the model answers
somewhere between the mutations, where versions and real time allow it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import ChainMap, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from itertools import accumulate, pairwise
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import Refused, microseconds
from tests.support.credit_model.model import Model
from tests.support.credit_model.prices import Meter
from tests.support.history import NEVER, Call, History, Message

TARIFF = {
    "download": Meter("credit", Fraction(2, 1024), Fraction(1, 1024)),
    "upload": Meter("credit", Fraction(4, 1024), Fraction(4, 1024)),
}
_CREATED = (
    pb.GrantResponse,
    pb.DebitResponse,
    pb.ReserveResponse,
    pb.CaptureResponse,
    pb.ReleaseResponse,
)


class Violation(AssertionError):  # noqa: N818 (what it is, not an error of the checker)
    """What no strict serial order explains, with the operation."""


def check(history: History) -> None:
    """Raises ``Violation`` for the first thing that is wrong."""
    _check_real_time(history.calls)
    bounds = _Bounds(history.calls)
    for account_id, ledger in history.ledgers.items():
        calls = [call for call in history.calls if call.account_id == account_id]
        steps = _steps(calls, ledger)
        _check_order(steps)
        _replay(account_id, steps, _readers(calls, steps, bounds))
    _check_batches(history)


@dataclass
class _Step:
    """A mutation, and what it wrote."""

    call: Call
    entries: list[pb.Entry]


@dataclass
class _Reader:
    """Calls that changed nothing, to be placed behind ``low`` to ``high`` mutations."""

    calls: list[Call]
    low: int
    high: int
    places: list[int] = field(default_factory=list)


class _Bounds:
    """What real time says, over all accounts, of the versions that a call may stand between."""

    def __init__(self, calls: Sequence[Call]) -> None:
        known = [call for call in calls if call.version is not None]
        ended = sorted((call.end, call.version or 0) for call in known)
        self._ends = [end for end, _ in ended]
        self._before = list(accumulate((version for _, version in ended), max))
        self._writes = _Starts([call for call in known if call.fresh])
        self._reads = _Starts([call for call in known if not call.fresh])

    def after(self, call: Call) -> int:
        """The largest version that a call which ended before it began had."""
        place = bisect_left(self._ends, call.start)
        return self._before[place - 1] if place else 0

    def before(self, call: Call) -> tuple[int, int]:
        """The smallest versions of writes and reads that began after it ended."""
        return self._writes.smallest_after(call.end), self._reads.smallest_after(call.end)


class _Starts:
    def __init__(self, calls: Sequence[Call]) -> None:
        started = sorted((call.start, call.version or 0) for call in calls)
        self._starts = [start for start, _ in started]
        smallest = accumulate((version for _, version in reversed(started)), min)
        self._smallest = [*reversed(list(smallest)), NEVER]

    def smallest_after(self, time: int) -> int:
        return self._smallest[bisect_right(self._starts, time)]


def _check_real_time(calls: Sequence[Call]) -> None:
    """No version may be older than one that was answered before the call began."""
    newest: tuple[int, Call] | None = None
    ended = sorted((call for call in calls if call.version is not None), key=lambda c: c.end)
    place = 0
    for call in sorted(ended, key=lambda c: c.start):
        while ended[place].end < call.start:
            version = ended[place].version or 0
            if newest is None or version > newest[0]:
                newest = version, ended[place]
            place += 1
        if newest is not None and (call.version or 0) < newest[0] + call.fresh:
            raise Violation(
                f"{call}: version {call.version} after version {newest[0]} of {newest[1]}, "
                "which ended before it began"
            )


def _steps(calls: Sequence[Call], ledger: Sequence[pb.Entry]) -> list[_Step]:
    """Who wrote each entry; each answered mutation must have written once."""
    fresh: dict[str, Call] = {}
    unknown: dict[str, Call] = {}
    for call in calls:
        if call.fresh and fresh.setdefault(call.request_id, call) is not call:
            raise Violation(f"{call}: applied twice, before as {fresh[call.request_id]}")
        if call.unknown and call.request_id:
            unknown.setdefault(call.request_id, call)
    steps: dict[str, _Step] = {}
    last = None
    for entry in ledger:
        request_id = entry.request_id
        if request_id != last and request_id in steps:
            raise Violation(f"{steps[request_id].call}: applied twice, again as {entry.entry_id}")
        if request_id not in steps:
            asked = fresh.pop(request_id, None) or unknown.get(request_id)
            if asked is None:
                raise Violation(f"entry {entry.entry_id} of {entry.account_id}: nobody asked for "
                                f"{request_id!r}")  # fmt: skip
            steps[request_id] = _Step(asked, [])
        steps[request_id].entries.append(entry)
        last = request_id
    for call in fresh.values():
        raise Violation(f"{call}: lost, answered but not in the ledger")
    return list(steps.values())


def _check_order(steps: Sequence[_Step]) -> None:
    """Versions and real time agree with the order of the ledger."""
    known = [step.call for step in steps if step.call.version is not None]
    for earlier, later in pairwise(known):
        if (later.version or 0) < (earlier.version or 0):
            raise Violation(f"{later}: reordered, its version is older than that of {earlier}")
    latest: Call | None = None
    for step in steps:
        if latest is not None and step.call.end < latest.start:
            raise Violation(f"{step.call}: reordered, it ended before {latest} began")
        if latest is None or step.call.start > latest.start:
            latest = step.call


def _readers(calls: Sequence[Call], steps: Sequence[_Step], bounds: _Bounds) -> list[_Reader]:
    """Everything that changed nothing, with where it may stand."""
    wrote = {id(step.call) for step in steps}
    known = [(step.call.version, k) for k, step in enumerate(steps) if step.call.version]
    groups: dict[object, list[Call]] = defaultdict(list)
    for call in calls:
        if id(call) not in wrote and not call.unknown:
            refused = call.refusal is not None and call.together is not None
            groups[call.together if refused else id(call)].append(call)
    readers = []
    for group in groups.values():
        call = group[0]
        low = max(_first(known, bounds.after(call)), _first(known, call.version or 0))
        writes, reads = bounds.before(call)
        high = min(_last(known, writes - 1, steps), _last(known, reads, steps))
        if call.version is not None:
            high = min(high, _last(known, call.version, steps))
        late = [
            k for k, step in enumerate(steps) if step.call.unknown and step.call.start > call.end
        ]
        readers.append(_Reader(group, low, min([high, *late])))
    return sorted(readers, key=lambda reader: reader.calls[0].start)


def _first(known: Sequence[tuple[int, int]], version: int) -> int:
    """How many mutations stand before a state of this version at least."""
    place = bisect_right(known, (version, NEVER))
    return known[place - 1][1] + 1 if place else 0


def _last(known: Sequence[tuple[int, int]], version: int, steps: Sequence[_Step]) -> int:
    """How many may stand before it at most."""
    place = bisect_right(known, (version, NEVER))
    return known[place][1] if place < len(known) else len(steps)


def _replay(account_id: str, steps: Sequence[_Step], readers: Sequence[_Reader]) -> None:
    model = Model(TARIFF)
    waiting: dict[int, list[_Reader]] = defaultdict(list)
    for reader in readers:
        for k in range(reader.low, reader.high + 1):
            waiting[k].append(reader)
    for k in range(len(steps) + 1):
        now_us = microseconds(steps[min(k, len(steps) - 1)].entries[0].create_time) if steps else 0
        for reader in waiting.pop(k, ()):
            if _explains(model, account_id, reader.calls, now_us):
                reader.places.append(k)
        if k < len(steps):
            _apply(model, steps[k])
    _place(readers)


def _apply(model: Model, step: _Step) -> None:
    """The mutation must be answered, and its entries written, as the model says."""
    call = step.call
    books = model.books(call.account_id)
    before = len(books.written)
    now_us = microseconds(step.entries[0].create_time)
    found = "OK" if call.answer is None else _plain(call.answer)
    try:
        expected = model.apply(call.method, call.request, now_us)
    except Refused as refused:
        raise Violation(f"{call}: must be refused, {refused}; was answered {found}") from None
    if call.answer is not None and found != expected:
        raise Violation(f"{call}: answered {found}; the model: {expected}")
    if (written := books.written[before:]) != step.entries:
        raise Violation(f"{call}: wrote {step.entries}; the model: {written}")


def _explains(model: Model, account_id: str, calls: Sequence[Call], now_us: int) -> bool:
    """Whether the model would answer this now, and change nothing."""
    if calls[0].method == "GetBalance":
        currency = calls[0].request.currency or "credit"
        found: object = calls[0].answer.balance if calls[0].answer else None
        return model.balance(account_id, currency, now_us) == found
    scratch = Model(TARIFF)
    scratch.accounts[account_id] = model.books(account_id).draft()
    scratch.answers = ChainMap({}, model.answers)  # type: ignore[assignment]  # as a dict
    for call in calls:
        outcome: tuple[str, dict[str, str]] | Any
        try:
            outcome = scratch.apply(call.method, call.request, now_us)
        except Refused as refused:
            outcome = (
                refused.reason,
                {} if refused.reason == "REQUEST_ID_REUSED" else refused.metadata,
            )
        if call.refusal is None:
            same = outcome == _plain(call.answer)
        elif call.refusal[0] == "BATCH_ABORTED":
            same = isinstance(outcome, _CREATED)
        elif call.refusal[0] == "REQUEST_ID_REUSED":
            same = outcome == ("REQUEST_ID_REUSED", {})
        else:
            same = outcome == call.refusal
        if not same:
            return False
    return True


def _place(readers: Sequence[_Reader]) -> None:
    """Each stands where it is explained, and none before one that ended before it began."""
    ends: list[tuple[int, int]] = []
    low = 0
    for reader in readers:
        call = reader.calls[0]
        while ends and ends[0][0] < call.start:
            low = max(low, heappop(ends)[1])
        places = [place for place in reader.places if place >= low]
        if not places:
            told = _plain(call.answer) if call.answer else [each.refusal for each in reader.calls]
            raise Violation(
                f"{call}: no state that it may have seen explains {told} "
                f"(behind {reader.low} to {reader.high} mutations; explained: {reader.places})"
            )
        heappush(ends, (call.end, places[0]))


def _check_batches(history: History) -> None:
    """All or nothing: every debit of such a batch is in the ledgers, or none."""
    done = {entry.request_id for ledger in history.ledgers.values() for entry in ledger}
    batches: dict[int, list[Call]] = defaultdict(list)
    for call in history.calls:
        if call.together is not None:
            batches[call.together].append(call)
    for batch in batches.values():
        found = {call.request_id in done for call in batch}
        versions = {call.version for call in batch}
        refused = any(call.refusal for call in batch)
        if len(found) > 1 or len(versions) > 1 or (refused and any(c.answer for c in batch)):
            raise Violation(f"{batch[0]}: a batch of all or nothing was split")


def _plain(answer: Message) -> Message:
    """Without the version, which the model does not have."""
    plain = type(answer)()
    plain.CopyFrom(answer)
    plain.version = ""
    return plain
