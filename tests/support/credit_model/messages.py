"""What the model answers: its parts as messages of the contract."""

from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb

from tests.support.credit_model.books import NEVER, OVERDRAFT, Books, Hold, timestamp


def balance_message(books: Books, currency: str) -> pb.Balance:
    """The balance in a currency."""
    purse = books.purse(currency)
    parts = {name: getattr(purse, name) for name in ("granted", "held", "spent", "expired")}
    return pb.Balance(
        account_id=books.account_id,
        currency=currency,
        available=purse.available,
        voided=purse.voided,
        overdraft_limit=purse.overdraft_limit,
        **parts,
    )


def grant_messages(books: Books, currency: str) -> list[pb.GrantBalance]:
    """The unspent grants, without those that no grant gave."""
    found = []
    for lot in books.purse(currency).lots:
        if lot.number == OVERDRAFT:
            continue
        grant = books.grants[lot.number]
        message = pb.GrantBalance(
            grant_id=books.grant_name(lot.number),
            amount=grant.added,
            remaining=lot.remaining,
            priority=lot.priority,
            expire_time=None if lot.expire_us == NEVER else timestamp(lot.expire_us),
            create_time=timestamp(grant.create_us),
            recurrence=grant.recurrence,
        )
        if grant.next_refill_us != NEVER:
            message.next_refill_time.CopyFrom(timestamp(grant.next_refill_us))
        found.append(message)
    return found


def hold_message(books: Books, hold: Hold) -> pb.Hold:
    """A hold or lease."""
    return pb.Hold(
        hold_id=books.hold_name(hold.number),
        account_id=books.account_id,
        currency=hold.currency,
        amount=hold.amount,
        captured=hold.captured,
        remaining=hold.remaining,
        state=pb.HoldState.ValueType(hold.state),
        expire_time=timestamp(hold.expire_us),
        expiry_policy=pb.ExpiryPolicy.ValueType(hold.policy),
        excess_rule=pb.ExcessRule.ValueType(hold.excess_rule),
        shortfall=hold.shortfall,
        owner=hold.owner,
        resource=hold.resource,
    )
