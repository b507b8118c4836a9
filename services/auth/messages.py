"""The domain's records as messages of the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp
from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth.accounts import Account
from services.auth.api_keys import ApiKey
from services.auth.notices import Notice
from services.rpc.errors import InvalidArgumentError


def account_message(account: Account) -> pb.Account:
    """An account as it is answered."""
    return pb.Account(
        account_id=account.account_id,
        display_name=account.display_name,
        state=pb.AccountState.ValueType(account.state),
        create_time=_timestamp(account.create_time_us),
    )


def api_key_message(key: ApiKey) -> pb.ApiKey:
    """A key as it is answered: without its hash."""
    return pb.ApiKey(
        key_id=key.key_id,
        account_id=key.account_id,
        display_name=key.display_name,
        scopes=[pb.Scope.ValueType(scope) for scope in key.scopes],
        create_time=_timestamp(key.create_time_us),
        expire_time=None if key.expire_time_us is None else _timestamp(key.expire_time_us),
        revoke_time=None if key.revoke_time_us is None else _timestamp(key.revoke_time_us),
    )


def notice_message(notice: Notice) -> pb.Notice:
    """A notice as it is answered."""
    return pb.Notice(kind=pb.NoticeKind.ValueType(notice.kind), message=notice.message)


def expiry_us(request: pb.CreateApiKeyRequest | pb.ImportApiKeyRequest) -> int | None:
    """When the key to be made expires, in microseconds since 1970; None: never.

    Raises ``InvalidArgumentError`` for what is no time of the years 1 to 9999.
    """
    if not request.HasField("expire_time"):
        return None
    try:
        return request.expire_time.ToMicroseconds()
    except ValueError:
        violation = {"expire_time": "must be a time of the years 1 to 9999"}
        raise InvalidArgumentError(violations=violation) from None


def _timestamp(time_us: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(time_us)
    return stamp
