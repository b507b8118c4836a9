"""Revocation and closing against decisions that are under way at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth.errors import (
    AccountClosedError,
    AccountStateConflictError,
    CredentialRevokedError,
)
from services.rpc.errors import ServiceError
from tests.support.auth_service import AuthClient

CALLERS = 8

pytestmark = pytest.mark.parametrize("store", ["lmdb", "simulated"], indirect=True)


async def decisions_around(
    mesh: AuthClient, credential: str, end: Callable[[], Awaitable[object]]
) -> list[tuple[bool, ServiceError | None]]:
    """Decisions by many callers, before, while and after ``end`` runs.

    Each as whether it was asked for after ``end`` had been answered, and how it was refused.
    """
    ended = asyncio.Event()
    started = asyncio.Semaphore(0)
    seen: list[tuple[bool, ServiceError | None]] = []

    async def caller() -> None:
        asked_after = 0
        while asked_after < 3:
            after = ended.is_set()
            asked_after += after
            try:
                await mesh.authorize(credential)
            except ServiceError as error:
                seen.append((after, error))
            else:
                seen.append((after, None))
            started.release()

    async with asyncio.TaskGroup() as callers:
        for _ in range(CALLERS):
            callers.create_task(caller())
        for _ in range(CALLERS * 3):
            await started.acquire()
        await end()
        ended.set()
    return seen


@pytest.mark.parametrize("round_number", range(3))
async def test_no_decision_asked_for_after_a_revocation_was_answered_is_yes(
    mesh: AuthClient, round_number: int
) -> None:
    del round_number
    key = await mesh.key(await mesh.account())
    seen = await decisions_around(mesh, key.credential, lambda: mesh.revoke(key.api_key.key_id))
    assert any(error is None for _, error in seen)
    assert sum(after for after, _ in seen) >= CALLERS * 3
    for after, error in seen:
        assert isinstance(error, CredentialRevokedError) if after else True
        assert error is None or isinstance(error, CredentialRevokedError)


async def test_no_decision_asked_for_after_a_closing_was_answered_is_yes(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    key = await mesh.key(account_id)
    seen = await decisions_around(
        mesh, key.credential, lambda: mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED)
    )
    for after, error in seen:
        assert isinstance(error, AccountClosedError) if after else True


async def test_of_many_closings_and_reactivations_a_closing_is_the_last(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    states = [pb.ACCOUNT_STATE_ACTIVE, pb.ACCOUNT_STATE_SUSPENDED] * 10
    states.insert(7, pb.ACCOUNT_STATE_CLOSED)
    answers = await asyncio.gather(
        *(mesh.set_state(account_id, state) for state in states), return_exceptions=True
    )
    for answer in answers:
        if isinstance(answer, BaseException):
            assert isinstance(answer, AccountStateConflictError)
    found = await mesh.accounts.GetAccount(pb.GetAccountRequest(account_id=account_id))
    assert found.account.state == pb.ACCOUNT_STATE_CLOSED


async def test_keys_made_while_the_account_is_closed_are_either_listed_or_refused(
    mesh: AuthClient,
) -> None:
    account_id = await mesh.account()
    calls: list[Awaitable[object]] = [mesh.key(account_id) for _ in range(10)]
    calls.insert(5, mesh.set_state(account_id, pb.ACCOUNT_STATE_CLOSED))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    made = {a.api_key.key_id for a in answers if isinstance(a, pb.CreateApiKeyResponse)}
    refused = [a for a in answers if isinstance(a, BaseException)]
    assert all(isinstance(error, AccountStateConflictError) for error in refused)
    listed = await mesh.accounts.ListApiKeys(pb.ListApiKeysRequest(account_id=account_id))
    assert {key.key_id for key in listed.api_keys} == made
    assert len(made) + len(refused) == 10
