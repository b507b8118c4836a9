"""What callers are told when the store fails: the translation that every server is handed.

The one module of the store that knows the contract's errors; ``rpc`` knows no store.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.rpc import errors as contract
from services.rpc.errors import ServiceError
from services.store import errors as store

STORE_ERRORS: Mapping[type[Exception], type[ServiceError]] = {
    store.StoreOverloadedError: contract.OverloadedError,
    store.StoreUnavailableError: contract.StoreUnavailableError,
    store.StoreClosedError: contract.ShuttingDownError,
    store.RequestIdReusedError: contract.RequestIdReusedError,
    store.PageTokenInvalidError: contract.PageTokenInvalidError,
}
"""The others are mistakes of ours, or a service's own business (``VersionUnknownError``)."""
