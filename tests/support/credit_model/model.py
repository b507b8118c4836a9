"""The credit contract as a small state machine: an operation and a time in, the answer out.

Covers every mutation of the contract, what time does, and what is read. Written from the contract
alone; it imports nothing of the service. ``version`` is left empty in its answers.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from tollmesh.credits.v1 import credits_pb2 as pb
from tollmesh.credits.v1 import ledger_pb2

from tests.support.credit_model import captures, grants, holds, leases, outlays, returns
from tests.support.credit_model.books import DAY_US, Books, Refused, timestamp
from tests.support.credit_model.messages import balance_message, grant_messages, hold_message
from tests.support.credit_model.prices import MAX, Tariff
from tests.support.credit_model.settlement import settle

__all__ = ["Message", "Model", "settle"]

Message = Any
"""A request or answer of the contract, whichever."""


class Model:
    """Every account, and every request id."""

    def __init__(self, tariff: Tariff) -> None:
        self.tariff = tariff
        self.accounts: dict[str, Books] = {}
        self.answers: dict[str, tuple[str, bytes, Any]] = {}

    def apply(self, method: str, request: Message, now_us: int) -> Message:
        """The answer of a mutation; raises ``Refused``, and then nothing has happened.

        ``StreamDebits`` takes one message of a stream.
        """
        if method == "StreamDebits":
            return pb.StreamDebitsResponse(outcomes=self._each(request.debits, now_us))
        if method == "BatchDebit":
            together = request.all_or_nothing
            done = self._together if together else self._each
            return pb.BatchDebitResponse(outcomes=done(request.debits, now_us))
        again = self._replay(method, request)
        if again is not None:
            return again
        books = self.books(request.account_id)
        draft = books.draft()
        settle(draft, now_us)
        answer = _OPERATIONS[method](draft, self.tariff, request, now_us)
        books.keep(draft)
        self._remember(method, request, answer)
        return answer

    def settle(self, now_us: int) -> None:
        """Applies to every account what is due, for good."""
        for books in self.accounts.values():
            settle(books, now_us)

    def books(self, account_id: str) -> Books:
        """An account; a new one has nothing."""
        return self.accounts.setdefault(account_id, Books(account_id))

    # what is read

    def balance(self, account_id: str, currency: str, now_us: int) -> pb.Balance:
        """The balance, with all that is due by now applied."""
        return balance_message(self._settled(account_id, now_us), currency)

    def grants(self, account_id: str, currency: str, now_us: int) -> list[pb.GrantBalance]:
        """The unspent grants in spend order, but for credit that no grant gave."""
        return grant_messages(self._settled(account_id, now_us), currency)

    def hold(self, account_id: str, hold_id: str, now_us: int) -> pb.Hold:
        """A hold or lease in any state; raises ``Refused``."""
        books = self._settled(account_id, now_us)
        hold = books.hold_of(hold_id)
        if hold is None:
            raise Refused("HOLD_NOT_FOUND")
        return hold_message(books, hold)

    def holds(self, account_id: str, now_us: int) -> list[pb.Hold]:
        """The open ones, what expires first coming first, then the older one."""
        books = self._settled(account_id, now_us)
        due = sorted((books.holds[n].expire_us, n) for n in books.open_holds)
        return [hold_message(books, books.holds[number]) for _, number in due]

    def terms(self, account_id: str, currency: str) -> ledger_pb2.AccountTerms:
        """The terms of an account in a currency."""
        return _terms(self.books(account_id), currency)

    def entries(self, account_id: str, now_us: int) -> list[pb.Entry]:
        """The ledger, with all that is due by now applied for good: a read settles."""
        books = self.books(account_id)
        settle(books, now_us)
        return books.written

    def usage(
        self, account_id: str, period: pb.UsagePeriod.ValueType = pb.USAGE_PERIOD_UNSPECIFIED
    ) -> list[pb.MeterUsage]:
        """Usage of all time; ``entries`` settles, so ask for those first."""
        lines: dict[tuple[int, str, int, str], pb.MeterUsage] = {}
        for (day, meter, cache, currency), counted in self.books(account_id).usage.items():
            start = _period_start(day, period)
            key = start or 0, meter, cache, currency
            line = lines.get(key)
            if line is None:
                cache_result = pb.CacheResult.ValueType(cache)
                line = pb.MeterUsage(meter=meter, cache_result=cache_result, currency=currency)
                if start is not None:
                    line.start_time.CopyFrom(timestamp(start * DAY_US))
                lines[key] = line
            if line.quantity + counted.quantity > MAX:
                raise Refused("AMOUNT_OUT_OF_RANGE")
            line.count += counted.deliveries
            for name in _COUNTED:
                setattr(line, name, getattr(line, name) + getattr(counted, name))
        return [line for _, line in sorted(lines.items(), key=lambda item: item[0])]

    # how it is done

    def _settled(self, account_id: str, now_us: int) -> Books:
        draft = self.books(account_id).draft()
        settle(draft, now_us)
        return draft

    def _replay(self, method: str, request: Message) -> Message | None:
        earlier = self.answers.get(request.request_id)
        if earlier is None:
            return None
        if earlier[:2] != (method, request.SerializeToString(deterministic=True)):
            raise Refused("REQUEST_ID_REUSED")
        again = type(earlier[2])()
        again.CopyFrom(earlier[2])
        again.replayed = True
        return again

    def _remember(self, method: str, request: Message, answer: Message) -> None:
        content = request.SerializeToString(deterministic=True)
        self.answers[request.request_id] = method, content, answer

    def _each(self, debits: Iterable[pb.DebitRequest], now_us: int) -> Iterator[pb.DebitOutcome]:
        """Each debit's own outcome."""
        for request in debits:
            try:
                yield pb.DebitOutcome(debit=self.apply("Debit", request, now_us))
            except Refused as refused:
                yield pb.DebitOutcome(error=_error(refused))

    def _together(self, debits: Iterable[pb.DebitRequest], now_us: int) -> list[pb.DebitOutcome]:
        """All, or none but what was done before."""
        trial = Model(self.tariff)
        answers = ChainMap({}, self.answers)
        trial.answers = answers  # type: ignore[assignment]  # as a dict
        requests = list(debits)
        for request in requests:
            name = request.account_id
            trial.accounts[name] = self.books(name).draft()
        outcomes = list(trial._each(requests, now_us))
        if not any(outcome.HasField("error") for outcome in outcomes):
            for name, draft in trial.accounts.items():
                self.accounts[name].keep(draft)
            self.answers.update(answers.maps[0])
            return outcomes
        aborted = pb.DebitOutcome(error=_error(Refused("BATCH_ABORTED")))
        before = [request.request_id in self.answers for request in requests]
        return [
            outcome if outcome.HasField("error") or known else aborted
            for outcome, known in zip(outcomes, before, strict=True)
        ]


_COUNTED = (
    "quantity",
    "amount",
    "shortfall",
    "free_quantity",
    "refunded_quantity",
    "refunded_amount",
)
CODES = {
    "INSUFFICIENT_CREDIT": 9,
    "METER_UNKNOWN": 3,
    "INVALID_ARGUMENT": 3,
    "AMOUNT_OUT_OF_RANGE": 11,
    "REQUEST_ID_REUSED": 6,
    "BATCH_ABORTED": 10,
}
"""``google.rpc.Code`` of the reasons for which a debit is refused."""


def _error(refused: Refused) -> pb.DebitError:
    """Without the message, which is for people."""
    return pb.DebitError(
        code=CODES[refused.reason], reason=refused.reason, metadata=refused.metadata
    )


def _set_terms(
    books: Books, request: ledger_pb2.SetAccountTermsRequest, now_us: int
) -> ledger_pb2.SetAccountTermsResponse:
    currency = request.currency or "credit"
    told = []
    if request.HasField("overdraft_limit"):
        grants.require_room(books, currency)
        purse = books.purse(currency)
        books.purses[currency] = purse._replace(overdraft_limit=request.overdraft_limit)
        told.append(f"overdraft_limit={request.overdraft_limit}")
    if request.HasField("shadow"):
        books.shadow = request.shadow
        told.append(f"shadow={str(request.shadow).lower()}")
    ids = {"request_id": request.request_id, "resource": " ".join(told)}
    books.enter(pb.ENTRY_KIND_SET_TERMS, currency, 0, now_us, **ids)
    return ledger_pb2.SetAccountTermsResponse(terms=_terms(books, currency))


def _terms(books: Books, currency: str) -> ledger_pb2.AccountTerms:
    limit = books.purse(currency).overdraft_limit
    return ledger_pb2.AccountTerms(
        account_id=books.account_id, currency=currency, overdraft_limit=limit, shadow=books.shadow
    )


def _period_start(day: int, period: pb.UsagePeriod.ValueType) -> int | None:
    """The day with which the period of a day begins; None if time is not cut."""
    if period == pb.USAGE_PERIOD_UNSPECIFIED:
        return None
    if period == pb.USAGE_PERIOD_DAY:
        return day
    return day + 1 - (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=day)).day


def _free_of_prices(
    operation: Callable[[Books, Message, int], Message],
) -> Callable[[Books, Tariff, Message, int], Message]:
    return lambda books, _, request, now_us: operation(books, request, now_us)


_OPERATIONS: dict[str, Callable[[Books, Tariff, Message, int], Message]] = {
    "Grant": _free_of_prices(grants.grant),
    "VoidGrant": _free_of_prices(grants.void_grant),
    "Debit": outlays.debit,
    "Refund": _free_of_prices(returns.refund),
    "Reserve": holds.reserve,
    "Capture": captures.capture,
    "ExtendHold": holds.extend,
    "Release": _free_of_prices(holds.release),
    "OpenLease": _free_of_prices(leases.open_lease),
    "SettleLease": leases.settle_lease,
    "SetAccountTerms": _free_of_prices(_set_terms),
}
