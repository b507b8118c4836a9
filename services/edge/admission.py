"""Who may do what here, and how much at once.

Decisions are the auth service's; each is used again for as long as its answer says. Refusals are
not kept: the auth service rejects mistyped keys without looking anything up.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tollmesh.auth.v1 import auth_pb2 as pb

from services.auth.errors import (
    CredentialMalformedError,
    CredentialMissingError,
    ScopeMissingError,
)
from services.edge.behind import Behind
from services.edge.cache.memory import MokaCache
from services.edge.errors import RateLimitedError

if TYPE_CHECKING:  # the type has no class at run time
    from tollmesh.auth.v1.auth_pb2_grpc import AuthServiceAsyncStub

_DECISIONS = 10_000
_LONGEST_CREDENTIAL = 512
_TIMEOUT_S = 2.0


class Client(NamedTuple):
    """Who asks, as a face sees them."""

    credential: str
    """The API key as it was presented; empty when none was."""
    ip_address: str = ""
    user_agent: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as the auth service knows them."""

    account_id: str
    key_id: str
    concurrent_requests: int
    """At most so many at once on this edge; 0 is no limit."""


DOWNLOAD = (pb.ACTION_DOWNLOAD,)
UPLOAD = (pb.ACTION_UPLOAD,)
PIN = (pb.ACTION_PIN,)
STAT = (pb.ACTION_READ, pb.ACTION_DOWNLOAD)
UPLOAD_STATUS = (pb.ACTION_READ, pb.ACTION_UPLOAD)
LIST_PINS = (pb.ACTION_PIN, pb.ACTION_READ)
ADMIN = (pb.ACTION_ADMIN,)

Actions = tuple["pb.Action.ValueType", ...]
"""What a request amounts to; a key that may do any of them will do."""


def credential_of(headers: Mapping[str, str]) -> str:
    """The key in a request's headers or metadata (lower-case names); empty when there is none.

    It stands in ``authorization`` (Bearer) or in ``x-api-key``.
    """
    authorization = headers.get("authorization", "")
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return credential.strip()
    # Of another scheme there is nothing to use; but something was presented.
    return headers.get("x-api-key", "-" if authorization else "").strip()


class Place:
    """A place among an account's requests in flight."""

    __slots__ = ("is_ours",)

    def __init__(self) -> None:
        self.is_ours = True

    def hand_over(self) -> None:
        """From now on somebody else vacates it."""
        self.is_ours = False


class Admission:
    """Authorises, and counts each account's requests in flight.

    Args:
        stub: the auth service.
        region: where this edge is.
    """

    def __init__(self, stub: AuthServiceAsyncStub, region: str) -> None:
        self._stub = stub
        self._region = region
        self._behind = Behind("auth")
        self._decisions = MokaCache(_DECISIONS)
        self._in_flight: Counter[str] = Counter()

    async def authorize(self, client: Client, actions: Actions, resource: str) -> Caller:
        """The caller, if the credential may do one of ``actions``.

        Raises the refusals of AuthService.Authorize, and what any service raises.
        """
        caller = self.recall(client, actions)
        if caller is not None:
            return caller
        digest = digest_of(client.credential)
        refusal: ScopeMissingError | None = None
        for action in actions:
            try:
                return await self._decide(client, action, resource, digest)
            except ScopeMissingError as error:
                refusal = refusal or error
        raise refusal or ScopeMissingError

    def recall(self, client: Client, actions: Actions) -> Caller | None:
        """As ``authorize``, by a decision that still holds; None when there is none. No I/O.

        Raises CredentialMissingError and CredentialMalformedError.
        """
        credential = client.credential
        if not credential:
            raise CredentialMissingError
        if len(credential) > _LONGEST_CREDENTIAL:
            raise CredentialMalformedError
        digest = digest_of(credential)
        for action in actions:
            caller: Caller | None = self._decisions.peek((digest, action))
            if caller is not None:
                return caller
        return None

    def recalled(self, digest: bytes, action: pb.Action.ValueType) -> Caller | None:
        """The same for one action and the digest of a credential; raises nothing."""
        caller: Caller | None = self._decisions.peek((digest, action))
        return caller

    def has_place(self, caller: Caller) -> bool:
        """Whether ``occupy`` would succeed."""
        limit = caller.concurrent_requests
        return not limit or self._in_flight[caller.account_id] < limit

    @contextmanager
    def slot(self, caller: Caller) -> Iterator[Place]:
        """A place among the account's requests in flight. Raises RateLimitedError."""
        self.occupy(caller)
        place = Place()
        try:
            yield place
        finally:
            if place.is_ours:
                self.vacate(caller)

    def occupy(self, caller: Caller) -> None:
        """Takes a place as ``slot`` does; ``vacate`` gives it back."""
        account_id, limit = caller.account_id, caller.concurrent_requests
        if limit and self._in_flight[account_id] >= limit:
            raise RateLimitedError(
                f"The account has {limit} requests in flight on this edge, which is its limit.",
                metadata={"concurrent_requests": str(limit)},
            )
        self._in_flight[account_id] += 1

    def vacate(self, caller: Caller) -> None:
        """Gives a place back."""
        account_id = caller.account_id
        self._in_flight[account_id] -= 1
        if not self._in_flight[account_id]:
            del self._in_flight[account_id]

    async def _decide(
        self, client: Client, action: pb.Action.ValueType, resource: str, digest: bytes
    ) -> Caller:
        request = pb.AuthorizeRequest(
            credential=client.credential,
            action=action,
            resource=resource[:512],
            client=pb.ClientContext(
                region=self._region,
                ip_address=client.ip_address[:64],
                user_agent=client.user_agent[:512],
            ),
        )
        answer = await self._behind.ask(lambda: self._stub.Authorize(request, timeout=_TIMEOUT_S))
        caller = Caller(answer.account_id, answer.key_id, answer.limits.concurrent_requests)
        ttl_s = answer.cache_time_to_live.ToMilliseconds() / 1000
        if ttl_s > 0:
            await self._decisions.set((digest, action), caller, ttl=ttl_s)
        return caller


def digest_of(credential: str) -> bytes:
    """What stands for a credential wherever it is remembered."""
    return hashlib.blake2b(credential.encode(), digest_size=16).digest()
