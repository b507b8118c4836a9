"""What another team writes with the client library of the installed stubs, async and sync."""

from __future__ import annotations

import asyncio
import sys

from tollmesh.client import AsyncCreditClient, CreditClient, InsufficientCredit


async def debit(target: str, account_id: str) -> int:
    """What is left after a debit."""
    async with AsyncCreditClient(target) as client:
        return (await client.debit(account_id, 7)).balance.available


def main(target: str, account_id: str) -> None:
    """Debits and prints what is left."""
    left = [asyncio.run(debit(target, account_id))]
    with CreditClient(target) as client:
        left.append(client.debit(account_id, 5).balance.available)
        try:
            client.debit(account_id, 1000)
        except InsufficientCredit as error:
            sys.stdout.write(f"{left[0]} {left[1]} {error.reason}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
