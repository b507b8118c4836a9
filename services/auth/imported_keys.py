"""Keys whose secrets another system gave out: they are found by the hash of the whole secret.

Pure functions of a transaction. Stored, besides the key: its id by the keyed hash of its secret.
Nothing that is stored gives the secret, or verifies a guess without the pepper.
"""

from __future__ import annotations

from collections.abc import Sequence

from services.auth import api_keys
from services.auth.api_keys import ApiKey
from services.auth.errors import ApiKeyConflictError
from services.store.port import Transaction


def create(tx: Transaction, key: ApiKey, digests: Sequence[bytes]) -> tuple[ApiKey, bool]:
    """Adds an imported key, or gives the equal one that there is; and whether there was one.

    ``digests``: of the secret, under each pepper. Raises what ``api_keys.create`` raises, and
    ``ApiKeyConflictError`` when the secret belongs to a key that differs.
    """
    earlier = api_keys.find_imported(tx, digests)
    if earlier is None:
        api_keys.create(tx, key)
        api_keys.index_imported(tx, key.key_id, key.hash)
        return key, False
    if _content(earlier) != _content(key):
        raise ApiKeyConflictError
    return earlier, True


def _content(key: ApiKey) -> tuple[object, ...]:
    return key.account_id, key.display_name, frozenset(key.scopes), key.expire_time_us
