from __future__ import annotations

from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import settlement
from services.credits.account import wallet_key
from services.credits.records import AGENDA, CLOSED_HOLDS, ENTRIES, HOLD_EXPIRIES, HOLDS
from tests.support.credit_service import KEEP_S, Account, Clock, CreditService, metered
from tests.support.ledger_audit import audit_account

ESTIMATE = pb.EXPIRY_POLICY_DEBIT_ESTIMATE


async def _count(service: CreditService, prefix: bytes) -> int:
    read = await service.store.read(lambda tx: len(tx.range(prefix, prefix + b"\xff")))
    return read.result


async def test_an_expired_hold_returns_to_the_balance(alice: Account, clock: Clock) -> None:
    await alice.grant(100)
    hold = (await alice.reserve(60, seconds=30)).hold
    await alice.capture(hold, 10)
    clock.advance(29.999_999)
    assert (await alice.balance()).balance.held == 50
    clock.advance(0.000_001)
    balance = (await alice.balance()).balance
    assert (balance.available, balance.held, balance.spent) == (90, 0, 10)
    entry = (await alice.entries())[-1]
    assert (entry.kind, entry.amount, entry.request_id) == (pb.ENTRY_KIND_RELEASE, 50, "")
    assert (entry.hold_id, entry.create_time) == (hold.hold_id, clock.after(0))


async def test_an_expired_hold_may_debit_what_is_left_of_its_estimate(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    hold = (
        await alice.reserve(
            metered=metered("download", 10_240, "MISS"), seconds=30, expiry_policy=ESTIMATE
        )
    ).hold
    assert (hold.amount, hold.expiry_policy) == (20, ESTIMATE)
    await alice.capture(hold, metered=metered("download", 2_048, "MISS"))
    clock.advance(31)
    balance = (await alice.balance()).balance
    assert (balance.available, balance.held, balance.spent) == (80, 0, 20)
    entry = (await alice.entries())[-1]
    assert (entry.kind, entry.amount, entry.request_id) == (pb.ENTRY_KIND_CAPTURE, 16, "")
    assert entry.metered == metered("download", 8_192, "MISS")
    (line,) = await alice.usage()
    assert (line.quantity, line.amount, line.count) == (10_240, 20, 2)
    await audit_account(alice.stub, "alice")


async def test_an_estimate_that_was_captured_whole_debits_nothing_more(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    quantity = metered("download", 10_240, "MISS")
    hold = (await alice.reserve(metered=quantity, seconds=30, expiry_policy=ESTIMATE)).hold
    await alice.capture(hold, 20)
    clock.advance(31)
    assert (await alice.balance()).balance.spent == 20
    assert not (await alice.entries())[-1].HasField("metered")
    assert not await alice.usage()
    await audit_account(alice.stub, "alice")


async def test_an_estimate_without_a_meter_is_debited_as_an_amount(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    await alice.reserve(20, seconds=30, expiry_policy=ESTIMATE)
    clock.advance(31)
    assert (await alice.balance()).balance.spent == 20
    await audit_account(alice.stub, "alice")


async def test_a_full_days_counter_does_not_keep_a_hold_from_its_expiry(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100)
    await alice.debit(metered=metered("download", 0))
    await alice.debit(metered=metered("free", 2**63 - 10))
    await alice.reserve(metered=metered("free", 100), seconds=30, expiry_policy=ESTIMATE)
    await alice.reserve(metered=metered("download", 1), seconds=30, expiry_policy=ESTIMATE)
    clock.advance(31)
    assert (await alice.balance()).balance.held == 0
    await audit_account(alice.stub, "alice")


async def test_a_debit_sees_what_a_hold_released_by_its_expiry(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(10)
    await alice.reserve(10, seconds=5)
    clock.advance(5)
    assert (await alice.debit(10)).balance.available == 0
    await audit_account(alice.stub, "alice")


async def test_what_a_hold_gave_back_in_time_pays_what_is_owed_however_late_one_looks(
    bob: Account, clock: Clock
) -> None:
    for name, looks in (("early", (70, 30)), ("late", (100,))):
        account = Account(bob.stub, name)
        await account.set_terms(overdraft_limit=100)
        await account.grant(50, expire_time=clock.after(100))
        await account.reserve(50, seconds=60)
        await account.debit(30)
        for seconds in looks:
            clock.advance(seconds)
            await account.balance()
        balance = (await account.balance()).balance
        assert (balance.available, balance.expired, balance.spent) == (0, 20, 30), name
        await audit_account(bob.stub, name)


async def test_holds_and_grants_expire_without_traffic(
    service: CreditService, alice: Account, clock: Clock
) -> None:
    await alice.grant(100, expire_time=clock.after(20))
    await alice.grant(50)
    await alice.reserve(30, seconds=10)
    await alice.reserve(30, seconds=30)
    for seconds, entries in ((9, 4), (1, 5), (9, 5), (1, 6), (9, 6), (1, 8), (1000, 8)):
        clock.advance(seconds)
        await service.sweeper.sweep()
        # Straight from the store: reading by the service would settle what is due.
        stored = await _count(service, ENTRIES.prefix)
        assert stored == entries + 1  # the wallet
    assert await _count(service, AGENDA.prefix) == 0
    assert await _count(service, HOLD_EXPIRIES.prefix) == 0
    audit = await audit_account(alice.stub, "alice")
    assert (audit.balance.available, audit.balance.expired) == (50, 100)


async def test_a_sweep_settles_every_account(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    accounts = [Account(bob.stub, f"account-{number}") for number in range(120)]
    for account in accounts:
        await account.grant(2)
        await account.reserve(1, seconds=5)
    clock.advance(5)
    await memory.sweeper.sweep()
    assert await _count(memory, AGENDA.prefix) == 0
    for account in accounts:
        assert (await account.entries())[-1].kind == pb.ENTRY_KIND_RELEASE


async def test_an_account_with_more_due_than_one_operation_settles_is_settled_on_the_way(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    many = settlement.STEPS * 2 + 50
    await bob.grant(many)
    for number in range(many):
        policy = ESTIMATE if number % 2 else pb.EXPIRY_POLICY_RELEASE
        await bob.reserve(1, seconds=5 + number / many, expiry_policy=policy)
    assert (await bob.balance()).balance.available == 0
    clock.advance(6)
    answer = await bob.debit(many // 2)
    assert (answer.balance.available, answer.balance.spent) == (0, many)
    assert await _count(memory, HOLD_EXPIRIES.prefix) == 0
    await audit_account(bob.stub, "bob")


async def test_the_same_is_true_for_a_read_and_for_grants(bob: Account, clock: Clock) -> None:
    many = settlement.STEPS + 50
    for number in range(many):
        await bob.grant(1, expire_time=clock.after(10 + number / many))
    clock.advance(11)
    balance = (await bob.balance()).balance
    assert (balance.available, balance.expired) == (0, many)
    await audit_account(bob.stub, "bob")


async def test_a_hold_over_many_grants_that_all_expired_is_settled(
    bob: Account, clock: Clock
) -> None:
    for _ in range(2 * settlement.STEPS):
        await bob.grant(1, expire_time=clock.after(10))
    await bob.reserve(2 * settlement.STEPS - 1, seconds=20)
    clock.advance(15)
    assert (await bob.balance()).balance.expired == 1
    clock.advance(15)
    assert (await bob.balance()).balance.expired == 2 * settlement.STEPS
    await audit_account(bob.stub, "bob")


async def test_closed_holds_are_forgotten_when_they_were_kept_long_enough(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    await bob.grant(10)
    holds = [(await bob.reserve(1)).hold for _ in range(3)]
    await bob.release(holds[0])
    await bob.capture(holds[1], 1, final=True)
    clock.advance(KEEP_S - 1)
    await memory.sweeper.sweep()
    assert await _count(memory, HOLDS.prefix) == 3
    clock.advance(3)
    await memory.sweeper.sweep()
    assert await _count(memory, HOLDS.prefix) == 1
    clock.advance(KEEP_S)
    await memory.sweeper.sweep()
    assert await _count(memory, HOLDS.prefix) == 0
    assert await _count(memory, CLOSED_HOLDS.prefix) == 0
    await audit_account(bob.stub, "bob")


async def test_the_wallet_stays_small_whatever_it_stands_for(
    memory: CreditService, bob: Account, clock: Clock
) -> None:
    for number in range(900):
        await bob.grant(2**50, expire_time=clock.after(10_000 + number), priority=-(2**31))
        await bob.reserve(1, seconds=1000)
    wallet = (await memory.store.read(lambda tx: tx.get(wallet_key("bob")))).result
    assert wallet is not None
    assert len(wallet) < 1200
    await audit_account(bob.stub, "bob")


async def test_a_batch_that_is_refused_whole_keeps_what_it_settled(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(10)
    await alice.reserve(10, seconds=5)
    clock.advance(5)
    batch = pb.BatchDebitRequest(debits=[alice.debit_request(11)])
    (outcome,) = (await alice.stub.BatchDebit(batch)).outcomes
    assert outcome.error.metadata["available"] == "10"
    audit = await audit_account(alice.stub, "alice")
    assert (audit.balance.available, audit.balance.held) == (10, 0)
