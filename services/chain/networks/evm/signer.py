"""The account that publishes: signs transactions with a private key from a file.

Signatures are deterministic (RFC 6979): the same transaction signed again is the same bytes, so it
need not be kept to be sent again.
"""

from __future__ import annotations

from dataclasses import dataclass

from eth_account import Account
from eth_account.signers.local import LocalAccount


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is signed: value 0, type 2 (EIP-1559). Fees are in wei for each gas."""

    chain_id: int
    nonce: int
    to: bytes
    data: bytes
    gas: int
    max_fee: int
    priority_fee: int


class Signer:
    """One account."""

    def __init__(self, private_key: str) -> None:
        """``private_key``: 32 bytes in hex, with or without 0x.

        Raises ``ValueError``, without the key in its message.
        """
        try:
            self._account: LocalAccount = Account.from_key(private_key)
        except Exception:  # noqa: BLE001 (a library that says it in many ways)
            raise ValueError("is not a private key: 32 bytes in hex") from None
        self.address: str = str(self._account.address)
        """0x and hex digits, with the checksum of EIP-55."""

    def sign(self, transaction: Transaction) -> bytes:
        """The signed transaction as it is broadcast (EIP-2718 envelope)."""
        signed = self._account.sign_transaction(
            {
                "type": 2,
                "chainId": transaction.chain_id,
                "nonce": transaction.nonce,
                "to": transaction.to,
                "value": 0,
                "data": transaction.data,
                "gas": transaction.gas,
                "maxFeePerGas": transaction.max_fee,
                "maxPriorityFeePerGas": transaction.priority_fee,
            }
        )
        return bytes(signed.raw_transaction)
