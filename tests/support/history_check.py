"""Decides whether a history of the credit service is strictly serializable, by the model.

The order of an account's mutations is that of its ledger; versions and real time must agree with
it, over all accounts, and the model, given the mutations in that order, must give each answer and
write each entry. What changes nothing (reads, replays, refusals) must be what the model answers
somewhere between the mutations, where versions and real time allow it (``history_readers``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from itertools import islice, pairwise

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import Refused, microseconds
from tests.support.credit_model.model import Model, settle
from tests.support.credit_model.prices import Meter, Tariff
from tests.support.history import Call, History
from tests.support.history_readers import Bounds, Reader, Readers, Violation, explained, plain

__all__ = ["Checker", "Violation", "check"]

TARIFF = {
    "download": Meter("credit", Fraction(2, 1024), Fraction(1, 1024)),
    "upload": Meter("credit", Fraction(4, 1024), Fraction(4, 1024)),
}
NEWEST = 20
"""Entries that a reading of the newest ones may ask for."""
REMEMBERED = 2_000
"""Answered request ids of an account, of which the next round may send one again."""


def check(history: History) -> None:
    """Raises ``Violation`` for the first thing that is wrong."""
    Checker(TARIFF).check(history)


class Checker:
    """Judges a history round by round; between two rounds no call was under way."""

    def __init__(self, tariff: Tariff) -> None:
        self._tariff = tariff
        self._models: dict[str, Model] = {}
        self._effects: dict[str, Call] = {}
        """Who wrote under each request id, in all rounds."""
        self._newest: dict[str, list[pb.Entry]] = {}
        """The last entries of each account in earlier rounds."""
        self._version = 0
        """The latest that was answered in earlier rounds."""

    def check(self, history: History) -> None:
        """One round: its calls, and the entries that were written in it."""
        self._check_real_time(history.calls)
        bounds = Bounds(history.calls)
        by_account: dict[str, list[Call]] = defaultdict(list)
        for call in history.calls:
            by_account[call.account_id].append(call)
        for account_id, ledger in history.ledgers.items():
            calls = by_account.pop(account_id, [])
            effects = self._effects_of(calls, ledger)
            _check_order(effects)
            self._replay(account_id, ledger, effects, Readers(calls, effects, bounds))
        assert not by_account, f"the ledgers of {sorted(by_account)} are missing"
        self._check_reuse(history.calls)
        self._check_batches(history)
        versions = (call.version or 0 for call in history.calls)
        self._version = max(self._version, *versions, 0)

    def _check_real_time(self, calls: Sequence[Call]) -> None:
        """No version may be older than one that was answered before the call began."""
        newest, whose = self._version, "an earlier round"
        ended = sorted((call for call in calls if call.version is not None), key=lambda c: c.end)
        place = 0
        for call in sorted(ended, key=lambda c: c.start):
            while ended[place].end < call.start:
                if (version := ended[place].version or 0) > newest:
                    newest, whose = version, f"{ended[place]}, which ended before it began"
                place += 1
            if newest and (call.version or 0) < newest + call.fresh:
                raise Violation(f"{call}: version {call.version} after version {newest} of {whose}")

    def _effects_of(
        self, calls: Sequence[Call], ledger: Sequence[pb.Entry]
    ) -> list[tuple[int, Call]]:
        """Who wrote under each request id, and its first entry's place.

        Each answered mutation must have written, and only what somebody asked for.
        """
        fresh: dict[str, Call] = {}
        unknown = _unknown(calls)
        for call in calls:
            if call.fresh and fresh.setdefault(call.request_id, call) is not call:
                raise Violation(f"{call}: applied twice, before as {fresh[call.request_id]}")
        effects: dict[str, tuple[int, Call]] = {}
        for place, entry in enumerate(ledger):
            request_id = entry.request_id
            if not request_id or request_id in effects:
                continue
            if (earlier := self._effects.get(request_id)) is not None:
                raise Violation(f"{earlier}: applied twice, again as {entry.entry_id}")
            asked = fresh.pop(request_id, None) or unknown.get(request_id)
            if asked is None:
                raise Violation(f"entry {entry.entry_id} of {entry.account_id}: nobody asked for "
                                f"{request_id!r}")  # fmt: skip
            effects[request_id] = place, asked
        for call in fresh.values():
            raise Violation(f"{call}: lost, answered but not in the ledger")
        for request_id, (_, call) in effects.items():
            self._effects[request_id] = call
        return list(effects.values())

    def _replay(
        self,
        account_id: str,
        ledger: Sequence[pb.Entry],
        effects: Sequence[tuple[int, Call]],
        readers: Readers,
    ) -> None:
        """Has the model write the ledger again; each reader must be explained on the way."""
        model = self._models.setdefault(account_id, Model(self._tariff))
        written = model.books(account_id).written
        earlier = self._newest.get(account_id, [])
        calls, place = dict(effects), 0
        while True:
            near = ledger[min(place, len(ledger) - 1)].create_time if ledger else None
            near_us = 0 if near is None else microseconds(near)

            def newest(count: int, place: int = place) -> Sequence[pb.Entry]:
                return [*earlier, *ledger[max(0, place - count) : place]][: -count - 1 : -1]

            def explains(reader: Reader, near_us: int = near_us) -> bool:
                return explained(model, account_id, reader.calls, near_us, newest)

            readers.place(place, explains)
            if place >= len(ledger):
                break
            entry = ledger[place]
            call = calls.pop(place, None)
            if call is None and entry.request_id:
                twice = self._effects[entry.request_id]
                raise Violation(f"{twice}: applied twice, again as {entry.entry_id}")
            who = _apply(model, account_id, call, entry)
            found = list(ledger[place : place + len(written)])
            if written != found or not written:
                raise Violation(f"{who}: wrote {ledger[place : place + 3]}; the model: {written}")
            place += len(written)
            written.clear()
        readers.finish()
        self._newest[account_id] = [*earlier, *ledger][-NEWEST:]
        for request_id in list(islice(model.answers, max(0, len(model.answers) - REMEMBERED))):
            del model.answers[request_id]

    def _check_reuse(self, calls: Sequence[Call]) -> None:
        """An id that was used is refused for anything else, also on another account."""
        for call in calls:
            effect = self._effects.get(call.request_id)
            if call.unknown or not call.request_id:
                continue
            if call.refusal is not None and call.refusal[0] == "REQUEST_ID_REUSED":
                if effect is None or effect.start > call.end or _same_request(call, effect):
                    raise Violation(f"{call}: refused as reused, but was not")
            elif effect is not None and effect.end < call.start and not _same_request(call, effect):
                raise Violation(f"{call}: must be refused, its id was used by {effect}")

    def _check_batches(self, history: History) -> None:
        """All or nothing: every debit of such a batch is in the ledgers, or none."""
        batches: dict[int, list[Call]] = defaultdict(list)
        for call in history.calls:
            if call.together is not None:
                batches[call.together].append(call)
        for batch in batches.values():
            found = {self._is_effective(call) for call in batch}
            versions = {call.version for call in batch}
            refused = any(call.refusal for call in batch)
            if len(found) > 1 or len(versions) > 1 or (refused and any(c.answer for c in batch)):
                raise Violation(f"{batch[0]}: a batch of all or nothing was split")

    def _is_effective(self, call: Call) -> bool:
        """Whether it is in the ledger; its id may be there for another request."""
        effect = self._effects.get(call.request_id)
        return effect is not None and _same_request(call, effect)


def _unknown(calls: Sequence[Call]) -> dict[str, Call]:
    """By request id the first call that may have been applied although nobody was told.

    When the id was used for several requests it is one of those of which an answer is repeated.
    """
    repeated = {call.request_id: call for call in calls if call.answer and not call.fresh}
    unknown: dict[str, Call] = {}
    for call in calls:
        if call.unknown and call.request_id:
            known = repeated.get(call.request_id)
            if known is None or _same_request(call, known):
                unknown.setdefault(call.request_id, call)
    return unknown


def _check_order(effects: Sequence[tuple[int, Call]]) -> None:
    """Versions and real time agree with the order of the ledger."""
    known = [call for _, call in effects if call.version is not None]
    for earlier, later in pairwise(known):
        if (later.version or 0) < (earlier.version or 0):
            raise Violation(f"{later}: reordered, its version is older than that of {earlier}")
    latest: Call | None = None
    for _, call in effects:
        if latest is not None and call.end < latest.start:
            raise Violation(f"{call}: reordered, it ended before {latest} began")
        if latest is None or call.start > latest.start:
            latest = call


def _apply(model: Model, account_id: str, call: Call | None, entry: pb.Entry) -> str:
    """Does what wrote an entry, and says what that was; the answer must be what it was told."""
    now_us = microseconds(entry.create_time)
    if call is None:
        settle(model.books(account_id), now_us)
        return f"entry {entry.entry_id} of {account_id}, which nobody asked for"
    found = "OK" if call.answer is None else plain(call.answer)
    try:
        expected = model.apply(call.method, call.request, now_us)
    except Refused as refused:
        raise Violation(f"{call}: must be refused, {refused}; was answered {found}") from None
    if call.answer is not None and found != expected:
        raise Violation(f"{call}: answered {found}; the model: {expected}")
    return str(call)


def _same_request(call: Call, other: Call) -> bool:
    return call.method == other.method and call.request == other.request
