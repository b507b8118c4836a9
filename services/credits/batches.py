"""Batches that are done as a whole or not at all: one operation, whichever accounts they touch."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from services.credits.debits import Debit
from services.credits.errors import BatchAbortedError, invalid
from services.credits.parcels import Applied, DebitTerms, Parcel, Result, group_of, outcome_of
from services.rpc.errors import ServiceError
from services.store.errors import OperationTooLargeError
from services.store.port import MAX_OPERATION_BYTES, Operation, Store, Transaction

_TOO_LARGE = (
    f"one transaction reads and writes at most {MAX_OPERATION_BYTES:,} bytes, and all of these "
    "together are more: send fewer, or let each have its own outcome"
)


class _AbortedError(Exception):
    """Some debits were refused, or an account must be settled first; so nothing is done."""

    def __init__(self, results: list[Result]) -> None:
        super().__init__("nothing was done")
        self.results = results


async def debit_together(
    store: Store,
    terms: DebitTerms,
    settle: Callable[[str, int], Awaitable[None]],
    requests: Sequence[Debit],
) -> list[Applied | ServiceError]:
    """All debits in one transaction, or none: then those that were not refused are aborted.

    A debit that was done before (its request is repeated) stays done, and is answered as such.
    Raises ``InvalidArgumentError`` for more than one transaction takes, and store errors.
    """
    while True:
        parcel = Parcel(group_of(requests[0].account_id), terms, asyncio.get_running_loop(), {})
        for request in requests:
            parcel.add(request, 0)
        try:
            committed = await store.commit(
                Operation(_all_or_nothing(parcel), parcel.group, parcel.reads, parcel.seal)
            )
        except OperationTooLargeError:
            raise invalid("debits", _TOO_LARGE) from None
        except _AbortedError as aborted:
            results = aborted.results
        else:
            return [outcome_of(result, committed.version) for result in committed.result]
        if None not in results:
            version = (await store.read(lambda _: None)).version  # it sees what is replayed
            return [outcome_of(result, version) for result in _aborted(requests, results)]
        for request, result in zip(requests, results, strict=True):
            if result is None:
                await settle(request.account_id, parcel.now_us)


def _all_or_nothing(parcel: Parcel) -> Callable[[Transaction], list[Result]]:
    def run(tx: Transaction) -> list[Result]:
        results = parcel.run(tx)
        if not all(isinstance(result, tuple) for result in results):
            raise _AbortedError(results)
        return results

    return run


def _aborted(requests: Sequence[Debit], results: Sequence[Result]) -> Iterator[Result]:
    """What was done before the call stays done; what else was not refused is aborted.

    Also what stands in the batch twice: the second one looks like a replay of the first.
    """
    undone = {
        request.request_id
        for request, result in zip(requests, results, strict=True)
        if isinstance(result, tuple) and not result[1]
    }
    for request, result in zip(requests, results, strict=True):
        done = isinstance(result, tuple)
        yield BatchAbortedError() if done and request.request_id in undone else result
