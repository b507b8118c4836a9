"""The keyed hash under which a credential is kept, and its comparison.

A pepper is a secret of the installation that the store does not hold: whoever steals the store
alone can verify no guess. Each has an id, recorded with what it hashed, so that it can be replaced.

Stored: for each pepper that was ever used a fingerprint, so that another secret under its id, which
would make every key unknown, is noticed when the service starts.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from hashlib import blake2b

from services.auth.credential import Credential
from services.store.keys import Subspace
from services.store.port import Transaction

HASH_BYTES = 32
MIN_PEPPER_BYTES = 32

_FINGERPRINTS = Subspace("auth", "pepper")


class PepperChangedError(Exception):
    """A pepper's file does not hold the secret that it held when keys were hashed with it."""


class Peppers:
    """The peppers of an installation by id. Any verifies; new hashes are of the current one."""

    __slots__ = ("_keys", "current")

    def __init__(self, peppers: Mapping[str, bytes], current: str) -> None:
        """``current`` is one of the ids."""
        # BLAKE2b takes keys of at most 64 bytes; a pepper may be longer.
        self._keys = {name: blake2b(pepper).digest() for name, pepper in peppers.items()}
        self.current = current
        if current not in self._keys:
            raise ValueError(f"the current pepper {current!r} is not among the peppers")

    def hash(self, credential: Credential, pepper_id: str) -> bytes:
        """HASH_BYTES: BLAKE2b (RFC 7693) of the credential's body, keyed with a pepper.

        A pepper that is not here is replaced by the current one, so that a look-up takes the same
        path whatever it finds. The body has the environment and key id in it: a hash that is moved
        to another key's record fits nothing there.
        """
        key = self._keys.get(pepper_id, self._keys[self.current])
        return blake2b(credential.body.encode(), key=key, digest_size=HASH_BYTES).digest()

    def hash_secret(self, secret: str, pepper_id: str) -> bytes:
        """HASH_BYTES of a secret that another system made; never equal to any ``hash``."""
        key = self._keys[pepper_id]
        return blake2b(
            secret.encode(), key=key, digest_size=HASH_BYTES, person=b"imported"
        ).digest()

    def hashes_of_secret(self, secret: str) -> list[bytes]:
        """``hash_secret`` under each pepper, the current one first."""
        names = sorted(self._keys, key=lambda name: name != self.current)
        return [self.hash_secret(secret, name) for name in names]

    def matches(self, credential: Credential, pepper_id: str, expected: bytes) -> bool:
        """Whether ``expected`` is the credential's hash; takes equally long for any answer."""
        return hmac.compare_digest(self.hash(credential, pepper_id), expected)

    def enrol(self, tx: Transaction) -> list[str]:
        """Records the peppers in the store; says which of its earlier ones are not here any more.

        Raises ``PepperChangedError`` when one is not what it was.
        """
        for name, key in self._keys.items():
            fingerprint = blake2b(key, digest_size=16, person=b"pepper").digest()
            earlier = tx.get(_FINGERPRINTS.key(name))
            if earlier is None:
                tx.set(_FINGERPRINTS.key(name), fingerprint)
            elif earlier != fingerprint:
                raise PepperChangedError(
                    f"pepper {name!r} is not the secret that keys in this store were hashed with: "
                    "put the old file back, or give the new secret an id of its own"
                )
        stored = [_FINGERPRINTS.parts(key)[0] for key, _ in tx.range(*_FINGERPRINTS.range())]
        return [str(name) for name in stored if name not in self._keys]
