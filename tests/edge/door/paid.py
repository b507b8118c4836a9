"""What deliveries of a file server behind another proxy cost."""

from __future__ import annotations

from collections import Counter, defaultdict

from tollmesh.credits.v1 import credits_pb2

from tests.support.ledger_audit import Audit

KINDS = {credits_pb2.ENTRY_KIND_CAPTURE, credits_pb2.ENTRY_KIND_DEBIT}


def captured_by_path(
    audit: Audit, *hosts: str, unanswered: Counter[str] | None = None, estimate: int = 0
) -> Counter[str]:
    """Bytes by path, where each delivery is an entry of its own (no leases); fails on a second.

    Args:
        audit: the books.
        hosts: what the resources begin with.
        unanswered: how often each path was refused because the one that was asked had died. It may
            have let the request in before: that costs the estimate, for nobody can know.
        estimate: what that is.
    """
    paid: dict[str, list[int]] = defaultdict(list)
    for entry in audit.entries:
        if entry.kind in KINDS and entry.metered.quantity:
            host, slash, rest = entry.resource.partition("/")
            assert host in hosts
            paid[slash + rest].append(entry.metered.quantity)
    captured: Counter[str] = Counter()
    for path, quantities in paid.items():
        for _ in range((unanswered or Counter())[path]):
            if len(quantities) > 1 and estimate in quantities:
                quantities.remove(estimate)
        assert len(quantities) == 1, f"{path} is paid twice"
        captured[path] = quantities[0]
    return captured
