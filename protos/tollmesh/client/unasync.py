"""Makes the sync client of the async one: ``python -m tollmesh.client.unasync``."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
FILES = {f"async_{part}.py": f"sync_{part}.py" for part in ("client", "reads", "calls")}
_RULES = (
    (
        r"``sync_(\w+)\.py`` is made of this file by .*?gives\.\n",
        r"Made of ``async_\1.py`` by ``unasync``: change that one.\n",
    ),
    (r"\n    def debit_stream\(.*?AsyncDebitStream\(.*?\)\n", ""),
    (r"from tollmesh.client.async_stream import \w+\n", ""),
    (r"``async with``", "``with``"),
    (r", for asyncio\.", ", for threads."),
    (r"the asynchronous half", "the half for threads"),
    (r"``grpc\.aio``", "grpcio's sync channels"),
    (r"\nimport asyncio\n", "\n"),
    (r"\nimport grpc\.aio\n", "\n"),
    (r"grpc\.aio\.", "grpc."),
    (r"asyncio\.sleep", "time.sleep"),
    (r" +except asyncio\.CancelledError:\n.*?\n +raise\n", ""),
    (r"; grpc\.aio cancels them", ""),
    (r"\n\ndef _is_cancelled.*?> 0\n", ""),
    (r"\basync (def|for|with) ", r"\1 "),
    (r"\bawait ", ""),
    (r"__a(enter|exit)__", r"__\1__"),
    (r"\bAsync(Iterator|Iterable)", r"\1"),
    (r"(?<!``)async_(calls|debits|client|lease|reads)", r"sync_\1"),
    (r"Async(CreditClient|Lease)", r"\1"),
    (r"Async(Calls|Debits|Reads)", r"Sync\1"),
)


def converted(source: str) -> str:
    """The sync text of an async one."""
    for pattern, replacement in _RULES:
        source = re.sub(pattern, replacement, source, flags=re.DOTALL)
    return source


if __name__ == "__main__":
    for name, made in FILES.items():
        (HERE / made).write_text(converted((HERE / name).read_text()))
