"""The account with which a local mesh is tried: made once, with a key and some credit."""

from __future__ import annotations

from dataclasses import dataclass

from tollmesh.auth.v1 import auth_pb2
from tollmesh.auth.v1.auth_pb2_grpc import AccountServiceStub
from tollmesh.credits.v1 import credits_pb2
from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceStub

from services.auth import errors as auth_errors
from services.cli.mesh.local_mesh import LocalMesh
from services.credits import errors as credits_errors
from services.rpc.client import connect

SCOPES = (auth_pb2.SCOPE_DOWNLOAD, auth_pb2.SCOPE_UPLOAD, auth_pb2.SCOPE_PIN, auth_pb2.SCOPE_READ)


@dataclass(frozen=True)
class Tenant:
    """An account and its key."""

    account_id: str
    key: str
    notices: tuple[str, ...] = ()


async def make_tenant(mesh: LocalMesh, name: str) -> Tenant:
    """Makes an account with a key. Raises the services' errors."""
    async with connect(mesh.addresses["auth"], errors=auth_errors.ERRORS) as channel:
        accounts = AccountServiceStub(channel)
        request = auth_pb2.CreateAccountRequest(request_id=f"tenant-{name}", display_name=name)
        made = await accounts.CreateAccount(request)
        account_id = made.account.account_id
        key_request = auth_pb2.CreateApiKeyRequest(
            request_id=f"key-{account_id}", account_id=account_id, scopes=SCOPES
        )
        key = await accounts.CreateApiKey(key_request)
    notices = tuple(notice.message for notice in made.notices)
    return Tenant(account_id, key.credential, notices)


async def grant_once(mesh: LocalMesh, tenant: Tenant, amount: int) -> credits_pb2.Balance:
    """Grants credit, once however often it is called; the balance after it."""
    async with connect(mesh.addresses["credits"], errors=credits_errors.ERRORS) as channel:
        request = credits_pb2.GrantRequest(
            request_id=f"first-grant-{tenant.account_id}",
            account_id=tenant.account_id,
            amount=amount,
            resource="a first grant",
        )
        answer = await CreditServiceStub(channel).Grant(request)
    return answer.balance
