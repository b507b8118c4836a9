"""Transactions as endpoints show them: any change is seen, and gas is what the chain says."""

from __future__ import annotations

import random
from typing import Any

import pytest

from services.chain.networks.evm.endpoints import AnswerRefusedError
from services.chain.networks.evm.fees import Fees
from services.chain.networks.evm.signer import Signer, Transaction
from services.chain.networks.evm.transaction import calldata, calldata_gas
from tests.support.anvil import FUNDED_ADDRESS, FUNDED_KEY, OTHER_FUNDED_ADDRESS, Anvil

ACCESS = [{"address": "0x" + "22" * 20, "storageKeys": ["0x" + "00" * 31 + "01"]}]
KINDS: dict[str, dict[str, Any]] = {
    "legacy": {"gasPrice": "0x77359400"},
    "access list": {"gasPrice": "0x77359400", "accessList": ACCESS},
    "dynamic fee": {"maxFeePerGas": "0x77359400", "maxPriorityFeePerGas": "0x1"},
    "dynamic fee, access list": {"maxFeePerGas": "0x77359400", "accessList": ACCESS},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_calldata_of_every_kind_is_held_against_the_hash(anvil: Anvil, kind: str) -> None:
    data = bytes(range(256))
    sent = {"from": FUNDED_ADDRESS, "to": OTHER_FUNDED_ADDRESS, "data": "0x" + data.hex()}
    found = await anvil.rpc("eth_sendTransaction", {**sent, **KINDS[kind]})
    await anvil.mine()
    transaction = await anvil.rpc("eth_getTransactionByHash", found)
    assert calldata(transaction) == data
    for name, value in {"input": "0x00", "value": "0x1", "nonce": "0x9", "hash": None}.items():
        with pytest.raises(AnswerRefusedError):
            calldata({**transaction, name: value})


async def test_endpoints_of_older_habits_are_understood(anvil: Anvil) -> None:
    sent = {"from": FUNDED_ADDRESS, "to": OTHER_FUNDED_ADDRESS, "data": "0x01"}
    found = await anvil.rpc("eth_sendTransaction", {**sent, "maxFeePerGas": "0x77359400"})
    await anvil.mine()
    transaction = await anvil.rpc("eth_getTransactionByHash", found)
    del transaction["yParity"], transaction["accessList"]
    assert calldata(transaction) == b"\x01"


async def test_a_contract_creation_has_calldata_too(anvil: Anvil) -> None:
    found = await anvil.rpc("eth_sendTransaction", {"from": FUNDED_ADDRESS, "data": "0x00"})
    await anvil.mine()
    assert calldata(await anvil.rpc("eth_getTransactionByHash", found)) == b"\x00"


def test_kinds_that_only_a_rollup_knows_are_taken_as_they_are() -> None:
    assert calldata({"type": "0x7e", "input": "0x0102", "hash": "0x00"}) == b"\x01\x02"


@pytest.mark.parametrize("data", [b"\x00" * 65_535, random.Random(18).randbytes(65_535), b"\x01"])
async def test_gas_is_what_the_chain_estimates(anvil: Anvil, data: bytes) -> None:
    call = {"from": FUNDED_ADDRESS, "to": OTHER_FUNDED_ADDRESS, "data": "0x" + data.hex()}
    assert calldata_gas(data) == int(await anvil.rpc("eth_estimateGas", call), 16)


def test_the_same_transaction_is_signed_to_the_same_bytes() -> None:
    transaction = Transaction(31337, 7, bytes(20), b"data", 21_000, 10**10, 10**9)
    assert Signer(FUNDED_KEY).sign(transaction) == Signer(FUNDED_KEY[2:]).sign(transaction)


def test_a_wrong_key_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="not a private key") as refused:
        Signer("0x1234secret")
    assert "secret" not in str(refused.value)


def test_raised_fees_replace_in_any_pool_or_not_at_all() -> None:
    old = Fees(100, 10)
    assert old.raised(Fees(50, 5), 1_000) == Fees(113, 12)
    assert old.raised(Fees(500, 50), 1_000) == Fees(500, 50)
    assert old.raised(Fees(500, 50), 110) == Fees(110, 50)
    assert old.raised(Fees(500, 50), 109) is None
    assert old.raised(Fees(500, 50), 30) is None
