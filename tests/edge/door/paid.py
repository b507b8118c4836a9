"""What deliveries of a file server behind another proxy cost."""

from __future__ import annotations

from collections import Counter

from tollmesh.credits.v1 import credits_pb2

from tests.support.ledger_audit import Audit

KINDS = {credits_pb2.ENTRY_KIND_CAPTURE, credits_pb2.ENTRY_KIND_DEBIT}


def captured_by_path(audit: Audit, *hosts: str) -> Counter[str]:
    """Bytes by path, where each delivery is an entry of its own (no leases); fails on a second."""
    captured: Counter[str] = Counter()
    for entry in audit.entries:
        if entry.kind in KINDS and entry.metered.quantity:
            host, slash, rest = entry.resource.partition("/")
            assert host in hosts
            path = slash + rest
            assert path not in captured, f"{path} is paid twice"
            captured[path] = entry.metered.quantity
    return captured
