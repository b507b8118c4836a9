"""Every error of the table, provoked over the wire; none shows the inside of a service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.auth.v1 import auth_pb2 as auth
from tollmesh.chain.v1 import chain_pb2 as chain
from tollmesh.credits.v1 import credits_pb2 as credit
from tollmesh.edge.v1 import edge_pb2 as edge
from tollmesh.errors.v1 import errors_pb2

from services.auth.credential import Credential
from services.auth.errors import ERRORS as AUTH_ERRORS
from services.chain.dag.cid import Cid
from services.chain.errors import ERRORS as CHAIN_ERRORS
from services.cli.mesh.local_mesh import INBOX_ADDRESS, NETWORK
from services.credits.errors import ERRORS as CREDITS_ERRORS
from services.edge.errors import ERRORS as EDGE_ERRORS
from services.rpc.errors import COMMON
from tests.errors.conftest import MAX_OBJECT_BYTES, PIN_BYTES, Wire, paying
from tests.errors.provocations import PROVOCATIONS, grant, new_id, provokes
from tests.support.refusal import Refusal, refused, refused_stream

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Provoked in test_any_service.py, on a server whose handlers do what a good service never does.
ELSEWHERE = {"INTERNAL", "OVERLOADED", "SHUTTING_DOWN", "DEADLINE_EXCEEDED", "STORE_UNAVAILABLE"}
ELSEWHERE |= {"DEPENDENCY_UNAVAILABLE"}


def _authorize(key: str, action: auth.Action.ValueType = auth.ACTION_DOWNLOAD) -> Any:  # noqa: ANN401 (a message)
    return auth.AuthorizeRequest(credential=key, action=action)


async def _upload(messages: list[Any]) -> AsyncIterator[Any]:
    for message in messages:
        yield message


def _publication(size: int, *data: bytes, network: str = NETWORK) -> AsyncIterator[Any]:
    header = chain.PublishObjectHeader(request_id=new_id(), network=network, size_bytes=size)
    parts = [chain.PublishObjectRequest(data=part) for part in data]
    return _upload([chain.PublishObjectRequest(header=header), *parts])


async def _published(wire: Wire, data: bytes) -> str:
    pieces = [data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)]
    cid = str((await wire.chain.PublishObject(_publication(len(data), *pieces))).cid)
    request = chain.GetPublicationRequest(network=NETWORK, cid=cid)
    done = {chain.PUBLICATION_STATE_PUBLISHED, chain.PUBLICATION_STATE_FINALIZED}
    while (await wire.chain.GetPublication(request)).publication.state not in done:  # noqa: ASYNC110 (another process)
        await asyncio.sleep(0.1)
    return cid


@provokes("INVALID_ARGUMENT")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.credits.Grant(grant("", amount=-1)))


@provokes("REQUEST_ID_REUSED")
async def _(wire: Wire) -> Refusal:
    await wire.credits.Grant(grant("reuser", 1, "same"))
    return await refused(wire.credits.Grant(grant("reuser", 2, "same")))


@provokes("PAGE_TOKEN_INVALID")
async def _(wire: Wire) -> Refusal:
    request = credit.ListEntriesRequest(account_id="someone", page_token="made-up")
    return await refused(wire.credits.ListEntries(request))


@provokes("CREDENTIAL_MISSING")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.auth.Authorize(_authorize("")))


@provokes("CREDENTIAL_MALFORMED")
async def _(wire: Wire) -> Refusal:
    key = (await wire.tenant()).key
    typo = key[:-1] + ("a" if key[-1] != "a" else "b")
    return await refused(wire.auth.Authorize(_authorize(typo)))


@provokes("CREDENTIAL_UNKNOWN")
async def _(wire: Wire) -> Refusal:
    made = await wire.key(await wire.tenant())
    known = Credential.parse(made.credential)
    wrong = replace(known, secret=known.secret[::-1]).reveal()
    return await refused(wire.auth.Authorize(_authorize(wrong)))


@provokes("CREDENTIAL_EXPIRED")
async def _(wire: Wire) -> Refusal:
    soon = Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(seconds=1))
    key = (await wire.key(await wire.tenant(), expire_time=soon)).credential
    while soon.ToDatetime(UTC) > datetime.now(UTC):  # noqa: ASYNC110 (the clock has no event)
        await asyncio.sleep(0.05)
    return await refused(wire.auth.Authorize(_authorize(key)))


@provokes("CREDENTIAL_REVOKED")
async def _(wire: Wire) -> Refusal:
    key = await wire.key(await wire.tenant())
    revocation = auth.RevokeApiKeyRequest(request_id=new_id(), key_id=key.api_key.key_id)
    await wire.accounts.RevokeApiKey(revocation)
    return await refused(wire.auth.Authorize(_authorize(key.credential)))


@provokes("SCOPE_MISSING")
async def _(wire: Wire) -> Refusal:
    key = (await wire.key(await wire.tenant())).credential
    return await refused(wire.auth.Authorize(_authorize(key, auth.ACTION_UPLOAD)))


async def _state(wire: Wire, state: auth.AccountState.ValueType) -> tuple[str, str]:
    tenant = await wire.tenant()
    request = auth.SetAccountStateRequest(
        request_id=new_id(), account_id=tenant.account_id, state=state
    )
    await wire.accounts.SetAccountState(request)
    return tenant.account_id, tenant.key


@provokes("ACCOUNT_SUSPENDED")
async def _(wire: Wire) -> Refusal:
    _, key = await _state(wire, auth.ACCOUNT_STATE_SUSPENDED)
    return await refused(wire.auth.Authorize(_authorize(key)))


@provokes("ACCOUNT_CLOSED")
async def _(wire: Wire) -> Refusal:
    _, key = await _state(wire, auth.ACCOUNT_STATE_CLOSED)
    return await refused(wire.auth.Authorize(_authorize(key)))


@provokes("ACCOUNT_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.accounts.GetAccount(auth.GetAccountRequest(account_id="nobody")))


@provokes("API_KEY_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    request = auth.RevokeApiKeyRequest(request_id=new_id(), key_id="nokey")
    return await refused(wire.accounts.RevokeApiKey(request))


@provokes("ACCOUNT_STATE_CONFLICT")
async def _(wire: Wire) -> Refusal:
    account, _ = await _state(wire, auth.ACCOUNT_STATE_CLOSED)
    request = auth.SetAccountStateRequest(
        request_id=new_id(), account_id=account, state=auth.ACCOUNT_STATE_ACTIVE
    )
    return await refused(wire.accounts.SetAccountState(request))


@provokes("API_KEY_CONFLICT")
async def _(wire: Wire) -> Refusal:
    account, _ = await _state(wire, auth.ACCOUNT_STATE_ACTIVE)
    request = auth.ImportApiKeyRequest(
        request_id=new_id(),
        account_id=account,
        scopes=[auth.SCOPE_READ],
        secret=f"legacy-{new_id()}",
    )
    await wire.accounts.ImportApiKey(request)
    request.request_id = new_id()
    request.scopes.append(auth.SCOPE_PIN)
    return await refused(wire.accounts.ImportApiKey(request))


@provokes("NETWORK_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.chain.GetHead(chain.GetHeadRequest(network="nowhere")))


@provokes("OBJECT_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    cid = str(Cid.of(b"never published"))
    return await refused(wire.chain.StatObject(chain.StatObjectRequest(network=NETWORK, cid=cid)))


@provokes("CID_INVALID")
async def _(wire: Wire) -> Refusal:
    request = chain.StatObjectRequest(network=NETWORK, cid="bafynotours")
    return await refused(wire.chain.StatObject(request))


@provokes("OBJECT_CORRUPT")
async def _(wire: Wire) -> Refusal:
    junk = b"not a node: " + os.urandom(16)
    await _send_to_inbox(wire, junk)
    request = chain.StatObjectRequest(network=NETWORK, cid=str(Cid.of(junk)))
    while True:
        refusal = await refused(wire.chain.StatObject(request))
        if refusal.reason != "OBJECT_NOT_FOUND":  # not indexed yet
            return refusal
        await asyncio.sleep(0.1)


async def _send_to_inbox(wire: Wire, data: bytes) -> None:
    url = f"http://{wire.mesh.addresses['chain-node']}"
    sender = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"  # the chain's second account
    transaction = {"from": sender, "to": INBOX_ADDRESS, "data": f"0x{data.hex()}"}
    call = {"jsonrpc": "2.0", "id": 1, "method": "eth_sendTransaction", "params": [transaction]}
    async with aiohttp.ClientSession() as session, session.post(url, json=call) as answer:
        assert "result" in await answer.json()


@provokes("OBJECT_TOO_LARGE")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.chain.PublishObject(_publication(MAX_OBJECT_BYTES + 1, b"x")))


@provokes("RANGE_NOT_SATISFIABLE")
async def _(wire: Wire) -> Refusal:
    cid = await _published(wire, os.urandom(100))
    request = chain.ReadObjectRequest(network=NETWORK, cid=cid, offset=101)
    return await refused_stream(wire.chain.ReadObject(request))


@provokes("PUBLICATION_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    request = chain.GetPublicationRequest(network=NETWORK, cid=str(Cid.of(b"unknown")))
    return await refused(wire.chain.GetPublication(request))


@provokes("NETWORK_UNAVAILABLE")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.chain.GetHead(chain.GetHeadRequest(network="dead"), timeout=60))


@provokes("UPLOAD_INCOMPLETE")
async def _(wire: Wire) -> Refusal:
    return await refused(wire.chain.PublishObject(_publication(10, b"half")))


@provokes("RATE_LIMITED")
async def _(wire: Wire) -> Refusal:
    tenant = await wire.tenant(credit=1_000_000)
    cid = await _published(wire, os.urandom(12 << 20))
    request = edge.ReadObjectRequest(network=NETWORK, cid=cid)
    stub, open_calls = wire.edge, []
    try:
        for _ in range(2):
            call = stub.ReadObject(request, metadata=paying(tenant))
            open_calls.append(call)
            await call.read()  # admitted; what is not read keeps the call open
        return await refused_stream(stub.ReadObject(request, metadata=paying(tenant)))
    finally:
        for call in open_calls:
            call.cancel()


@provokes("PIN_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    tenant = await wire.tenant()
    cid = str(Cid.of(b"never pinned"))
    request = edge.UnpinObjectRequest(request_id=new_id(), network=NETWORK, cid=cid)
    return await refused(wire.edge.UnpinObject(request, metadata=paying(tenant)))


@provokes("PIN_CAPACITY_EXHAUSTED")
async def _(wire: Wire) -> Refusal:
    tenant = await wire.tenant(credit=1_000_000)
    cid = await _published(wire, os.urandom(PIN_BYTES + 1))
    request = edge.PinObjectRequest(request_id=new_id(), network=NETWORK, cid=cid)
    return await refused(wire.edge.PinObject(request, metadata=paying(tenant)))


@provokes("OBJECT_BANNED")
async def _(wire: Wire) -> Refusal:
    cid, operator = await _published(wire, os.urandom(100)), await _operator(wire)
    banning = edge.BanObjectRequest(network=NETWORK, cid=cid, reason="By order of a court.")
    await wire.edge.BanObject(banning, metadata=operator)
    request = edge.StatObjectRequest(network=NETWORK, cid=cid)
    return await refused(wire.edge.StatObject(request, metadata=operator))


@provokes("BAN_NOT_FOUND")
async def _(wire: Wire) -> Refusal:
    request = edge.UnbanObjectRequest(network=NETWORK, cid=str(Cid.of(b"never banned")))
    return await refused(wire.edge.UnbanObject(request, metadata=await _operator(wire)))


@provokes("OBJECT_PINNED")
async def _(wire: Wire) -> Refusal:
    tenant = await wire.tenant(credit=1_000_000)
    cid = await _published(wire, os.urandom(100))
    pinning = edge.PinObjectRequest(request_id=new_id(), network=NETWORK, cid=cid)
    await wire.edge.PinObject(pinning, metadata=paying(tenant))
    request = edge.PurgeObjectRequest(network=NETWORK, cid=cid)
    return await refused(wire.edge.PurgeObject(request, metadata=await _operator(wire)))


async def _operator(wire: Wire) -> tuple[tuple[str, str], ...]:
    """The metadata that names somebody who may do everything."""
    key = await wire.key(await wire.tenant(), scopes=[auth.SCOPE_ADMIN])
    return (("authorization", f"Bearer {key.credential}"),)


async def test_no_reason_is_left_out() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118 (not a dict)
    assert set(PROVOCATIONS) | ELSEWHERE == names - {"UNSPECIFIED"}


@pytest.mark.parametrize("reason", PROVOCATIONS)
async def test_a_reason_is_answered_as_the_table_says(wire: Wire, reason: str) -> None:
    refusal = await PROVOCATIONS[reason](wire)
    assert refusal.reason == reason, refusal
    assert refusal.domain == "tollmesh"
    assert refusal.message, "it says nothing to people"
    assert refusal.leaks() is None
    code, retryable, details = _declared(reason)
    assert refusal.code.name == code
    assert ("RetryInfo" in refusal.details) == retryable
    assert details <= refusal.details


def _declared(reason: str) -> tuple[str, bool, set[str]]:
    """The code, whether a retry helps, and the details, from the classes of the services."""
    classes = (*COMMON, *AUTH_ERRORS, *CREDITS_ERRORS, *CHAIN_ERRORS, *EDGE_ERRORS)
    declared = next(one for one in classes if one.reason_name() == reason)
    details = {"INVALID_ARGUMENT": {"BadRequest"}, "INSUFFICIENT_CREDIT": {"QuotaFailure"}}
    return declared.code.name, declared.retry_after_s is not None, details.get(reason, set())
