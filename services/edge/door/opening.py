"""The front door of an edge, put together."""

from __future__ import annotations

from services.edge.admission import Admission
from services.edge.bans import Bans
from services.edge.cache.disk import DiskCache
from services.edge.credit.ledger import REPEAT_S, Ledger
from services.edge.credit.payments import Payments
from services.edge.door.door import Door
from services.edge.door.late import LateReports
from services.edge.door.open_tickets import OpenTickets
from services.edge.door.register import Register
from services.edge.door.tickets import Seal
from services.edge.objects import ObjectKey
from services.edge.settings import EdgeSettings


def open_door(
    settings: EdgeSettings,
    admission: Admission,
    payments: Payments,
    ledger: Ledger,
    disk: DiskCache,
    bans: Bans,
) -> Door:
    """The door, with what earlier processes left unreported in mind. Raises OSError."""
    debit_estimate = settings.unreported == "debit_estimate"
    directory = settings.cache_dir

    def size_of(network: str, cid: str) -> int | None:
        bans.check(ObjectKey(network, cid))
        info = disk.info(cid)
        return None if info is None else info.size_bytes

    tickets = OpenTickets(
        payments,
        Seal.of(directory / "tickets.key"),
        # A report that comes this late can still be debited safely: its id is remembered.
        Register(directory / "tickets.journal", settings.guest_tickets, keep_s=REPEAT_S),
        admission.vacate,
        debit_estimate=debit_estimate,
    )
    return Door(
        admission,
        payments,
        tickets,
        LateReports(ledger, debit_estimate=debit_estimate),
        size_of=size_of,
        estimate_bytes=settings.guest_estimate_bytes,
    )
