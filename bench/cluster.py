"""What a FoundationDB cluster says of itself: its kind, and what became of transactions."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import fdb  # type: ignore[import-untyped]  # the binding ships no types

API_VERSION = 730
_STATUS = b"\xff\xff/status/json"
_COUNTS_AGE_S = 6.0
"""The processes of a cluster tell their counts every 5 s."""


class Transactions(NamedTuple):
    """Counts of a cluster since it started."""

    committed: int
    conflicted: int

    def since(self, earlier: Transactions) -> Transactions:
        """What was added."""
        return Transactions(
            self.committed - earlier.committed, self.conflicted - earlier.conflicted
        )


class Cluster:
    """The cluster of a file."""

    def __init__(self, file: Path) -> None:
        """Ends the program, saying why, when there is no client library or no such file."""
        try:
            fdb.api_version(API_VERSION)
        except Exception as error:  # noqa: BLE001 (the binding raises bare exceptions)
            sys.exit(
                "make bench-fdb needs FoundationDB's client library libfdb_c 7.3, of the package"
                f" foundationdb-clients ({error})"
            )
        if not file.is_file():
            sys.exit(f"make bench-fdb: there is no cluster file {file}")
        self._database = fdb.open(str(file))
        self._database.options.set_transaction_timeout(10_000)

    def kind(self) -> str:
        """Engine, redundancy, processes and version, in a line."""
        status = self._status()
        configuration, processes = status["configuration"], status["processes"].values()
        machines = {process["address"].rpartition(":")[0] for process in processes}
        versions = ", ".join(sorted({process["version"] for process in processes}))
        return (
            f"FoundationDB {versions}: {len(processes)} process(es) on"
            f" {len(machines)} machine(s), storage engine"
            f" {configuration['storage_engine']}, redundancy {configuration['redundancy_mode']},"
            f" logs {configuration['log_engine']}"
        )

    def transactions(self) -> Transactions:
        """What was committed and what conflicted up to this call; waits until the counts say so."""
        time.sleep(_COUNTS_AGE_S)
        counts = self._status()["workload"]["transactions"]
        return Transactions(counts["committed"]["counter"], counts["conflicted"]["counter"])

    def _status(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(bytes(self._database[_STATUS]))
        except fdb.FDBError as error:
            sys.exit(f"make bench-fdb: the cluster does not answer: {error.description.decode()}")
        return dict(found["cluster"])
