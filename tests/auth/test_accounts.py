"""Accounts over the wire."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth import accounts
from services.auth.accounts import Account, AccountState
from services.auth.errors import AccountNotFoundError, AccountStateConflictError
from services.rpc.errors import InvalidArgumentError, PageTokenInvalidError
from services.store.port import Operation
from tests.support.auth_service import AuthClient

ABSENT = "acc_absent"


async def test_an_account_is_made_active_and_is_found_again(mesh: AuthClient) -> None:
    request = pb.CreateAccountRequest(request_id="1", display_name="Zoë's files")
    made = await mesh.accounts.CreateAccount(request)
    assert made.account.display_name == "Zoë's files"
    assert made.account.state == pb.ACCOUNT_STATE_ACTIVE
    assert made.account.create_time.ToMicroseconds() == mesh.clock.now_us
    assert not made.replayed
    found = await mesh.accounts.GetAccount(pb.GetAccountRequest(account_id=made.account.account_id))
    assert found.account == made.account


async def test_who_makes_an_account_is_told_that_changing_locations_is_slow(
    mesh: AuthClient,
) -> None:
    made = await mesh.accounts.CreateAccount(pb.CreateAccountRequest(request_id="1"))
    assert [notice.kind for notice in made.notices] == [pb.NOTICE_KIND_LOCATION_HOPPING]
    message = made.notices[0].message
    for word in ("region", "cache", "locations", "VPN", "slower"):
        assert word in message
    again = await mesh.accounts.CreateAccount(pb.CreateAccountRequest(request_id="1"))
    assert again.notices == made.notices


async def test_an_absent_account_is_not_found(mesh: AuthClient) -> None:
    with pytest.raises(AccountNotFoundError):
        await mesh.accounts.GetAccount(pb.GetAccountRequest(account_id=ABSENT))
    with pytest.raises(AccountNotFoundError):
        await mesh.set_state(ABSENT, pb.ACCOUNT_STATE_SUSPENDED)
    with pytest.raises(AccountNotFoundError):
        await mesh.key(ABSENT)
    with pytest.raises(AccountNotFoundError):
        await mesh.accounts.ListApiKeys(pb.ListApiKeysRequest(account_id=ABSENT))


async def test_an_account_is_suspended_and_becomes_active_again(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    for state in (
        pb.ACCOUNT_STATE_SUSPENDED,
        pb.ACCOUNT_STATE_SUSPENDED,
        pb.ACCOUNT_STATE_ACTIVE,
    ):
        answer = await mesh.set_state(account_id, state)
        assert answer.account.state == state
        found = await mesh.accounts.GetAccount(pb.GetAccountRequest(account_id=account_id))
        assert found.account == answer.account


async def test_a_closed_account_stays_closed(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    await mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED)
    for state in (pb.ACCOUNT_STATE_ACTIVE, pb.ACCOUNT_STATE_SUSPENDED):
        with pytest.raises(AccountStateConflictError):
            await mesh.set_state(account_id, state)
    answer = await mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED)
    assert answer.account.state == pb.ACCOUNT_STATE_CLOSED


async def test_accounts_are_listed_oldest_first_in_pages(mesh: AuthClient) -> None:
    made = [await mesh.account(f"account {number}") for number in range(7)]
    listed: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = await mesh.accounts.ListAccounts(
            pb.ListAccountsRequest(page_size=3, page_token=token)
        )
        listed += [account.account_id for account in page.accounts]
        token, pages = page.next_page_token, pages + 1
    assert (listed, pages) == (made, 3)


async def test_a_page_that_is_just_full_is_the_last(mesh: AuthClient) -> None:
    for _ in range(3):
        await mesh.account()
    page = await mesh.accounts.ListAccounts(pb.ListAccountsRequest(page_size=3))
    assert (len(page.accounts), page.next_page_token) == (3, "")


async def test_the_largest_page_of_the_longest_names_is_answered(mesh: AuthClient) -> None:
    name = "\N{ROLLING ON THE FLOOR LAUGHING}" * 128
    await asyncio.gather(
        *(
            mesh.store.commit(Operation(partial(accounts.create, account=account)))
            for account in (
                Account(f"acc_{number}", name, AccountState.ACTIVE, 1) for number in range(1000)
            )
        )
    )
    page = await mesh.accounts.ListAccounts(pb.ListAccountsRequest(page_size=1000))
    assert (len(page.accounts), page.next_page_token) == (1000, "")


async def test_no_accounts_are_an_empty_page(mesh: AuthClient) -> None:
    assert await mesh.accounts.ListAccounts(pb.ListAccountsRequest()) == pb.ListAccountsResponse()


@pytest.mark.parametrize("token", ["x", "AAAA", "!", "AAAAAAAAAAAAAAAAAAAA"])
async def test_a_page_token_that_no_list_gave_is_refused(mesh: AuthClient, token: str) -> None:
    account_id = await mesh.account()
    with pytest.raises(PageTokenInvalidError):
        await mesh.accounts.ListAccounts(pb.ListAccountsRequest(page_token=token))
    with pytest.raises(PageTokenInvalidError):
        await mesh.accounts.ListApiKeys(
            pb.ListApiKeysRequest(account_id=account_id, page_token=token)
        )


async def test_the_contract_s_rules_are_enforced(mesh: AuthClient) -> None:
    account_id = await mesh.account()
    with pytest.raises(InvalidArgumentError) as caught:
        await mesh.accounts.CreateAccount(pb.CreateAccountRequest())
    assert set(caught.value.violations) == {"request_id"}
    with pytest.raises(InvalidArgumentError):
        await mesh.accounts.GetAccount(pb.GetAccountRequest())
    with pytest.raises(InvalidArgumentError):
        await mesh.accounts.ListAccounts(pb.ListAccountsRequest(page_size=1001))
    for state in (0, 4):
        request = pb.SetAccountStateRequest(request_id="1", account_id=account_id)
        request.state = state  # type: ignore[assignment]  # not a value of the contract
        with pytest.raises(InvalidArgumentError):
            await mesh.accounts.SetAccountState(request)
