"""Reports that come too late: for tickets of a process that is gone, or past their end.

What was set aside has been settled by then, or lies in a hold that nobody has captured. The report
still counts, once: a hold is captured by its id, whatever it has become; what was given back by the
policy *release* is debited from the balance; what was debited by *debit_estimate* stays.
"""

from __future__ import annotations

import time

from services.credits.errors import HoldNotFoundError, HoldNotOpenError
from services.edge.credit.journal import Entry
from services.edge.credit.ledger import REPEAT_S, Ledger
from services.edge.door.tickets import Stub
from services.process.logs import get_logger
from services.rpc.errors import ServiceError

log = get_logger(__name__)


class LateReports:
    """Settles them with the credit service.

    Args:
        ledger: the credit service.
        debit_estimate: whether a ticket without a report was debited by its estimate.
    """

    def __init__(self, ledger: Ledger, *, debit_estimate: bool) -> None:
        self._ledger = ledger
        self._debit_estimate = debit_estimate

    async def settle(self, stub: Stub, total: int, before: int) -> None:
        """Pays for ``total`` bytes, of which ``before`` were reported and settled in time.

        Repeated with the same request ids until the credit service has answered. What cannot be
        paid is in the log.
        """
        entry = _entry(stub)
        until = time.time() + REPEAT_S
        try:
            amount = await self._pay(stub, entry, total, before, until)
        except ServiceError as error:
            log.error(  # noqa: TRY400 (the reason says it all)
                "delivery_unpaid",
                account_id=stub.account_id,
                hold_id=stub.hold_id,
                meter=stub.meter,
                quantity=total,
                reason=error.reason_name(),
            )
        else:
            log.warning(
                "report_late",
                account_id=stub.account_id,
                hold_id=stub.hold_id,
                quantity=total,
                amount=amount,
            )

    async def _pay(self, stub: Stub, entry: Entry, total: int, before: int, until: float) -> int:
        if stub.hold_id:
            try:
                return await self._ledger.capture(entry, total, f"{stub.request_id}-c", until)
            except (HoldNotOpenError, HoldNotFoundError):
                pass  # settled by the policy, as credit of a lease was
        paid = max(before, stub.quantity) if self._debit_estimate else before
        if total <= paid:
            return 0
        return await self._ledger.debit(entry, total - paid, f"{stub.request_id}-d", until)


def _entry(stub: Stub) -> Entry:
    return Entry(
        account_id=stub.account_id,
        request_id=stub.request_id,
        meter=stub.meter,
        cache_result=0,
        resource=stub.resource,
        estimate=stub.quantity,
        hold_s=0,
        expires_at=0.0,
        hold_id=stub.hold_id,
    )
