from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.credits.v1 import credits_pb2 as pb

from services.credits import queries
from services.credits.errors import VersionUnknownError
from services.rpc.errors import InvalidArgumentError, PageTokenInvalidError
from tests.support.credit_service import DAY_S, START_S, Account, Clock, Value, metered


def _day(offset: int) -> Timestamp:
    return Timestamp(seconds=START_S // DAY_S * DAY_S + offset * DAY_S)


async def test_pages_in_either_order_hold_every_entry_once(alice: Account) -> None:
    await alice.grant(100)
    for _ in range(9):
        await alice.debit(1)
    expected = [entry.entry_id for entry in await alice.entries()]
    assert expected == sorted(expected)
    assert len(expected) == 10
    for newest_first, order in ((False, expected), (True, expected[::-1])):
        for size in (1, 3, 5, 10, 11):
            assert await _walk(alice, size, newest_first=newest_first) == order


async def _walk(account: Account, size: int, *, newest_first: bool) -> list[str]:
    found: list[str] = []
    token = ""
    while True:
        request = pb.ListEntriesRequest(
            account_id=account.account_id,
            page_size=size,
            page_token=token,
            newest_first=newest_first,
        )
        page = await account.stub.ListEntries(request)
        assert 0 < len(page.entries) <= size
        found += [entry.entry_id for entry in page.entries]
        token = page.next_page_token
        if not token:
            return found


LONG = "\U0001f4be" * 256
"""The longest name of a resource: 1,024 bytes."""


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_page_of_large_entries_has_as_many_as_one_read_holds(
    bob: Account, newest_first: bool
) -> None:
    await bob.grant(10_000)
    for _ in range(12):
        debits = [bob.debit_request(1, resource=LONG) for _ in range(100)]
        await bob.stub.BatchDebit(pb.BatchDebitRequest(debits=debits))
    request = pb.ListEntriesRequest(account_id="bob", page_size=1000, newest_first=newest_first)
    page = await bob.stub.ListEntries(request)
    assert 100 < len(page.entries) < 1000
    found = await _walk(bob, 1000, newest_first=newest_first)
    assert len(found) == len(set(found)) == 1201


async def test_a_page_of_large_holds_has_as_many_as_one_read_holds(bob: Account) -> None:
    await bob.grant(10_000)
    made = {(await bob.reserve(1, resource=LONG)).hold.hold_id for _ in range(1000)}
    found: list[str] = []
    request = pb.ListHoldsRequest(account_id="bob", page_size=1000)
    while not found or request.page_token:
        page = await bob.stub.ListHolds(request)
        assert 0 < len(page.holds) < 1000
        found += [hold.hold_id for hold in page.holds]
        request.page_token = page.next_page_token
    assert len(found) == 1000
    assert set(found) == made


async def test_entries_that_are_added_while_paging_disturb_nothing(alice: Account) -> None:
    for _ in range(4):
        await alice.grant(1)
    request = pb.ListEntriesRequest(account_id="alice", page_size=2, newest_first=True)
    first = await alice.stub.ListEntries(request)
    await alice.grant(1)
    request.page_token = first.next_page_token
    second = await alice.stub.ListEntries(request)
    ids = [entry.entry_id for entry in [*first.entries, *second.entries]]
    assert [int(entry_id, 16) for entry_id in ids] == [4, 3, 2, 1]


async def test_a_page_token_is_good_for_its_own_listing_only(alice: Account) -> None:
    for account in ("alice", "carol"):
        for _ in range(3):
            await alice.grant(1, account_id=account)
    request = pb.ListEntriesRequest(account_id="alice", page_size=1)
    token = (await alice.stub.ListEntries(request)).next_page_token
    wrong: list[dict[str, Value]] = [
        {"account_id": "carol"},
        {"newest_first": True},
        {"page_token": token[:-1]},
        {"page_token": "A" + token[1:]},
        {"page_token": "entry-2"},
    ]
    for fields in wrong:
        bad = pb.ListEntriesRequest(account_id="alice", page_size=1, page_token=token)
        bad.MergeFrom(pb.ListEntriesRequest(**fields))
        with pytest.raises(PageTokenInvalidError):
            await alice.stub.ListEntries(bad)


async def test_a_version_of_an_answer_is_seen_by_reads_and_others_are_unknown(
    alice: Account,
) -> None:
    answer = await alice.grant(5)
    assert (await alice.balance(at_least_version=answer.version)).balance.available == 5
    assert await alice.entries(at_least_version=answer.version)
    later = str(int(answer.version) + 1_000_000_000_000)
    for version in (later, "0", "-1", "01", "1e3", "soon", "\u0661", "9" * 32):
        with pytest.raises(VersionUnknownError):
            await alice.balance(at_least_version=version)
        with pytest.raises(VersionUnknownError):
            await alice.entries(at_least_version=version)


async def test_later_answers_have_larger_versions(alice: Account) -> None:
    versions = [int((await alice.grant(1)).version) for _ in range(5)]
    assert versions == sorted(set(versions))
    assert int((await alice.balance()).version) >= versions[-1]


async def test_usage_is_by_meter_cache_result_and_currency_over_whole_days(
    alice: Account, clock: Clock
) -> None:
    await alice.grant(100_000)
    await alice.grant(100, currency="stamp")
    for _ in range(3):
        await alice.debit(metered=metered("download", 1024, "HIT"))
        await alice.debit(metered=metered("download", 1024, "MISS"))
        await alice.debit(metered=metered("parcel", 2))
        await alice.debit(50)
        clock.advance(DAY_S)
    expected = [
        ("download", pb.CACHE_RESULT_HIT, "credit", 1024, 1),
        ("download", pb.CACHE_RESULT_MISS, "credit", 1024, 2),
        ("parcel", pb.CACHE_RESULT_UNSPECIFIED, "stamp", 2, 6),
    ]
    periods = {
        3: {},
        2: {"start_time": _day(1)},
        1: {"end_time": _day(1)},
        0: {"start_time": _day(3)},
    }
    for days, period in periods.items():
        lines = await alice.usage(**period)
        assert [
            (line.meter, line.cache_result, line.currency, line.quantity, line.amount, line.count)
            for line in lines
        ] == [
            (*names, days * quantity, days * amount, days)
            for *names, quantity, amount in expected
            if days
        ]
    assert not await alice.usage(start_time=_day(2), end_time=_day(1))
    middle = await alice.usage(start_time=_noon(1), end_time=_noon(2))
    assert {line.count for line in middle} == {1}


def _noon(offset: int) -> Timestamp:
    return Timestamp(seconds=_day(offset).seconds + DAY_S // 2)


async def test_a_day_begins_at_midnight_utc(alice: Account, clock: Clock) -> None:
    midnight = datetime.fromtimestamp(START_S, UTC).replace(hour=0, minute=0).timestamp() + DAY_S
    clock.now_us = int(midnight) * 1_000_000 - 1
    await alice.debit(metered=metered("free", 1))
    clock.now_us += 1
    await alice.debit(metered=metered("free", 10))
    start = Timestamp(seconds=int(midnight))
    assert [line.quantity for line in await alice.usage(end_time=start)] == [1]
    assert [line.quantity for line in await alice.usage(start_time=start)] == [10]


async def test_a_long_period_is_summed_in_parts(
    bob: Account, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "USAGE_PART", 7)
    for _ in range(28):
        await bob.debit(metered=metered("free", 1))
        await bob.debit(metered=metered("free", 1, "HIT"))
        clock.advance(DAY_S)
    assert [line.quantity for line in await bob.usage()] == [28, 28]


async def test_a_time_that_is_none_is_refused(alice: Account) -> None:
    for time in (Timestamp(seconds=2**62), Timestamp(nanos=-1), Timestamp(nanos=10**9)):
        with pytest.raises(InvalidArgumentError):
            await alice.usage(start_time=time)
        with pytest.raises(InvalidArgumentError):
            await alice.usage(end_time=time)
        with pytest.raises(InvalidArgumentError):
            await alice.grant(1, expire_time=time)
