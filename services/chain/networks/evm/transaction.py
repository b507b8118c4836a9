"""Transactions as JSON-RPC shows them: is the calldata what was signed, and what does it cost?

A transaction's hash covers all of it, so an endpoint (or a proxy before it) that alters calldata
gives itself away. Formats: the yellow paper, appendix B (RLP) and 4.2; EIP-2718, 2930, 1559, 4844
and 7702 for the typed ones. Gas of calldata: EIP-2028 and the floor of EIP-7623.
"""

from __future__ import annotations

from typing import Any

from eth_utils.crypto import keccak

from services.chain.networks.evm.endpoints import AnswerRefusedError

BASE_GAS = 21_000
_ZERO_GAS, _OTHER_GAS = 4, 16
_FLOOR_GAS_PER_TOKEN, _TOKENS_PER_OTHER = 10, 4

_FEES = ("maxPriorityFeePerGas", "maxFeePerGas")
_BODY = ("gas", "to", "value", "input")
_SIGNATURE = ("yParity", "r", "s")
_FIELDS: dict[int, tuple[str, ...]] = {
    0: ("nonce", "gasPrice", *_BODY, "v", "r", "s"),
    1: ("chainId", "nonce", "gasPrice", *_BODY, "accessList", *_SIGNATURE),
    2: ("chainId", "nonce", *_FEES, *_BODY, "accessList", *_SIGNATURE),
    3: (
        *("chainId", "nonce", *_FEES, *_BODY, "accessList"),
        *("maxFeePerBlobGas", "blobVersionedHashes", *_SIGNATURE),
    ),
    4: ("chainId", "nonce", *_FEES, *_BODY, "accessList", "authorizationList", *_SIGNATURE),
}
_LISTS = {
    "accessList": ("address", "storageKeys"),
    "authorizationList": ("chainId", "address", "nonce", *_SIGNATURE),
}
# Fields of a fixed width keep their leading zeros; all others are numbers, which have none.
_BYTES = frozenset({"to", "input", "address", "storageKeys", "blobVersionedHashes"})

_Item = bytes | list["_Item"]


def calldata(transaction: dict[str, Any]) -> bytes:
    """The calldata of a transaction, checked against the transaction's hash.

    Types that only rollups know (deposits) cannot be checked and are taken as they are: a node is
    looked for by its own hash anyway. Raises ``AnswerRefusedError``.
    """
    try:
        data = from_hex(transaction["input"])
        kind = int(transaction.get("type") or "0x0", 16)
        if kind in _FIELDS and _hash(transaction, kind) != from_hex(transaction["hash"]):
            raise AnswerRefusedError("a transaction does not match its hash")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise AnswerRefusedError("a transaction is not well-formed") from None
    return data


def calldata_gas(data: bytes) -> int:
    """The gas that a plain transaction with this calldata uses, by the rules of Ethereum now."""
    zeros = data.count(0)
    others = len(data) - zeros
    standard = _ZERO_GAS * zeros + _OTHER_GAS * others
    floor = _FLOOR_GAS_PER_TOKEN * (zeros + _TOKENS_PER_OTHER * others)
    return BASE_GAS + max(standard, floor)


def from_hex(text: str) -> bytes:
    """Reads 0x and hex digits. Raises ValueError, TypeError."""
    if text[:2] != "0x":
        raise ValueError(text[:10])
    return bytes.fromhex(text[2:])


def _hash(transaction: dict[str, Any], kind: int) -> bytes:
    # Older endpoints call it v, and leave an empty list out.
    known = {"accessList": [], "yParity": transaction.get("v"), **transaction}
    items = [_item(name, known[name]) for name in _FIELDS[kind]]
    return bytes(keccak((bytes((kind,)) if kind else b"") + _encode(items)))


def _item(name: str, value: Any) -> _Item:  # noqa: ANN401 (any JSON)
    if name in _LISTS:
        return [[_item(field, row[field]) for field in _LISTS[name]] for row in value]
    if isinstance(value, list):
        return [_item(name, each) for each in value]
    if value is None:
        return b""  # the recipient of a transaction that creates a contract
    if name in _BYTES:
        return from_hex(value)
    number = int(value, 16)
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _encode(item: _Item) -> bytes:
    if isinstance(item, list):
        body = b"".join(map(_encode, item))
        return _head(0xC0, len(body)) + body
    if len(item) == 1 and item[0] < 0x80:
        return item
    return _head(0x80, len(item)) + item


def _head(kind: int, length: int) -> bytes:
    if length < 56:
        return bytes((kind + length,))
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((kind + 55 + len(size),)) + size
