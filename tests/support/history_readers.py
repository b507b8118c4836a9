"""Calls that changed nothing, and where in an account's ledger each may stand."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import ChainMap, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import Refused
from tests.support.credit_model.model import Model, settle
from tests.support.history import NEVER, Call, Message

_CREATED = (
    pb.GrantResponse,
    pb.DebitResponse,
    pb.ReserveResponse,
    pb.CaptureResponse,
    pb.ReleaseResponse,
)
_Effects = Sequence[tuple[int, Call]]
"""Mutations in the order of the ledger, each with the place of its first entry."""


class Violation(AssertionError):  # noqa: N818 (what it is, not an error of the checker)
    """What no strict serial order explains, with the operation."""


@dataclass(eq=False)
class Reader:
    """Calls of one moment, to be placed behind ``low`` to ``high`` entries."""

    calls: list[Call]
    low: int
    high: int

    @property
    def start(self) -> int:
        return self.calls[0].start

    @property
    def end(self) -> int:
        return self.calls[0].end


class Bounds:
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


class Readers:
    """All of an account's, in the order of their beginning.

    Each gets the first place at which it is explained, and none one before that of a call that
    ended before it began.
    """

    def __init__(self, calls: Sequence[Call], effects: _Effects, bounds: Bounds) -> None:
        self._unplaced = _readers(calls, effects, bounds)

    def place(self, place: int, explains: Callable[[Reader], bool]) -> None:
        """Looks who may stand behind so many entries."""
        waiting: list[Reader] = []
        earliest = min((reader.end for reader in self._unplaced), default=NEVER)
        for reader in self._unplaced:
            may = reader.low <= place and reader.start <= earliest
            if may and explains(reader):
                if reader.end == earliest:
                    rest = self._unplaced[self._unplaced.index(reader) + 1 :]
                    earliest = min((other.end for other in (*waiting, *rest)), default=NEVER)
                continue
            waiting.append(reader)
            if reader.high <= place:
                self._unplaced = waiting
                self.finish(reader)
        self._unplaced = waiting

    def finish(self, late: Reader | None = None) -> None:
        """The ledger is at its end, or past the last place of one: it must have one by now."""
        for reader in [late] if late else self._unplaced:
            call = reader.calls[0]
            told = plain(call.answer) if call.answer else [each.refusal for each in reader.calls]
            raise Violation(
                f"{call}: no state that it may have seen explains {told} "
                f"(behind {reader.low} to {reader.high} entries)"
            )


def _readers(calls: Sequence[Call], effects: _Effects, bounds: Bounds) -> list[Reader]:
    """Everything that changed nothing, with where it may stand."""
    wrote = {id(call) for _, call in effects}
    known = [(call.version, place) for place, call in effects if call.version]
    unknown = [(place, call.start) for place, call in effects if call.unknown]
    groups: dict[object, list[Call]] = defaultdict(list)
    for call in calls:
        if id(call) in wrote or call.unknown or (call.refusal or ("",))[0] == "REQUEST_ID_REUSED":
            continue
        refused = call.refusal is not None and call.together is not None
        groups[call.together if refused else id(call)].append(call)
    readers = []
    for group in groups.values():
        call = group[0]
        low = max(_first(known, bounds.after(call)), _first(known, call.version or 0))
        writes, reads = bounds.before(call)
        highs = [_last(known, writes - 1), _last(known, reads)]
        if call.version is not None:
            highs.append(_last(known, call.version))
        highs += [place for place, start in unknown if start > call.end]
        readers.append(Reader(group, low, min(highs)))
    return sorted(readers, key=lambda reader: reader.start)


def _first(known: Sequence[tuple[int, int]], version: int) -> int:
    """How many entries stand at least before a state of this version."""
    place = bisect_right(known, (version, NEVER))
    return known[place - 1][1] + 1 if place else 0


def _last(known: Sequence[tuple[int, int]], version: int) -> int:
    """How many may stand before it at most."""
    place = bisect_right(known, (version, NEVER))
    return known[place][1] if place < len(known) else NEVER


def explained(
    model: Model,
    account_id: str,
    calls: Sequence[Call],
    near_us: int,
    newest: Callable[[int], Sequence[pb.Entry]],
) -> bool:
    """Whether the model would answer this now, and change nothing.

    Args:
        near_us: the time, if nothing is known of the clock.
        newest: so many entries at the ledger's end.
    """
    call = calls[0]
    if not call.request_id:
        return _is_read(model, call, newest) and (
            not call.nows_us or any(_is_settled(model, account_id, now) for now in call.nows_us)
        )
    return any(_is_told(model, account_id, calls, now) for now in call.nows_us or (near_us,))


def _is_read(model: Model, call: Call, newest: Callable[[int], Sequence[pb.Entry]]) -> bool:
    """Whether this is the state that was read; what is due was settled before, for good."""
    request, account_id = call.request, call.account_id
    answer: Message = call.answer or pb.GetHoldResponse()
    match call.method:
        case "GetBalance":
            currency = request.currency or "credit"
            named = [grant for grant in answer.grants if grant.grant_id]  # not: of no grant
            found: object = answer.balance, named
            told: object = (
                model.balance(account_id, currency, 0),
                model.grants(account_id, currency, 0),
            )
        case "GetHold":
            found = call.refusal or answer.hold
            try:
                told = model.hold(account_id, request.hold_id, 0)
            except Refused as refused:
                told = refused.reason, refused.metadata
        case "ListHolds":
            found, told = _in_order(answer.holds), _in_order(model.holds(account_id, 0))
        case "ListEntries":
            found, told = list(answer.entries), list(newest(request.page_size))
        case "GetUsage":
            found, told = list(answer.usage), model.usage(account_id, request.period)
        case "GetAccountTerms":
            found, told = answer.terms, model.terms(account_id, request.currency or "credit")
        case _:
            raise AssertionError(f"not a read: {call}")
    return found == told


def _in_order(holds: Sequence[pb.Hold]) -> list[pb.Hold]:
    return sorted(holds, key=lambda hold: (hold.expire_time.ToMicroseconds(), hold.hold_id))


def _is_settled(model: Model, account_id: str, now_us: int) -> bool:
    draft = model.books(account_id).draft()
    settle(draft, now_us)
    return not draft.written


def _is_told(model: Model, account_id: str, calls: Sequence[Call], now_us: int) -> bool:
    """Whether replays and refusals are what the model says."""
    scratch = Model(model.tariff)
    scratch.accounts[account_id] = model.books(account_id).draft()
    scratch.answers = ChainMap({}, model.answers)  # type: ignore[assignment]  # as a dict
    for call in calls:
        outcome: tuple[str, dict[str, str]] | Any
        try:
            outcome = scratch.apply(call.method, call.request, now_us)
        except Refused as refused:
            outcome = refused.reason, refused.metadata
        if call.refusal is None:
            same = outcome == plain(call.answer)
        elif call.refusal[0] == "BATCH_ABORTED":
            same = isinstance(outcome, _CREATED)
        else:
            same = outcome == call.refusal
        if not same:
            return False
    return True


def plain(answer: Message) -> Message:
    """Without the version, which the model does not have."""
    copy = type(answer)()
    copy.CopyFrom(answer)
    copy.version = ""
    return copy
