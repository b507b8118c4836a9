"""The auth contract over the domain: messages to arguments, results to messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from tollmesh.auth.v1 import auth_pb2 as pb
from tollmesh.auth.v1 import auth_pb2_grpc as pb_grpc

from services.auth import accounts, api_keys, identifiers, imported_keys
from services.auth.accounts import Account, AccountState
from services.auth.api_keys import ApiKey, KeyHash, Scope
from services.auth.credential import OWN_PREFIX, Credential, ImportedSecret, presented
from services.auth.decision import Verifier, decide
from services.auth.messages import account_message, api_key_message, expiry_us, notice_message
from services.auth.notices import LOCATION_HOPPING
from services.auth.peppers import Peppers
from services.process.logs import get_logger
from services.rpc.call import Call
from services.rpc.errors import InvalidArgumentError
from services.store.errors import RequestIdReusedError, StoreError
from services.store.port import Operation, Store, Transaction
from services.store.requests import RequestRecords, fingerprint

Clock = Callable[[], int]
"""Microseconds since 1970, UTC."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a decision grants besides its yes."""

    cache_us: int
    """For how long it may be reused, in microseconds, unless the key expires before."""
    concurrent_requests: int
    """Of one account in flight on one edge; 0: no limit."""


class AuthServicer(pb_grpc.AuthServiceServicer):
    """Decisions."""

    def __init__(self, store: Store, verifier: Verifier, terms: Terms, now_us: Clock) -> None:
        self._store = store
        self._verifier = verifier
        self._terms = terms
        self._now_us = now_us

    async def Authorize(
        self, request: pb.AuthorizeRequest, context: object
    ) -> pb.AuthorizeResponse:
        """Decides; every refusal is an error."""
        call = Call.of(context)
        action = Scope(request.action)
        call.note(action=action.name.lower(), region=request.client.region)
        call.note(resource=request.resource)
        credential = presented(request.credential)
        if isinstance(credential, Credential):
            call.note(key_id=credential.key_id)
        now_us = self._now_us()
        decided = await self._store.read(
            lambda tx: decide(tx, self._verifier, credential, action, now_us=now_us)
        )
        key = decided.result
        call.note(account_id=key.account_id, key_id=key.key_id)
        await self._renew_hash(key, credential)
        return pb.AuthorizeResponse(
            account_id=key.account_id,
            key_id=key.key_id,
            scopes=[pb.Scope.ValueType(scope) for scope in key.scopes],
            limits=pb.Limits(concurrent_requests=self._terms.concurrent_requests),
            cache_time_to_live=self._time_to_live(key, now_us),
        )

    def _time_to_live(self, key: ApiKey, now_us: int) -> Duration:
        cache_us = self._terms.cache_us
        if key.expire_time_us is not None:
            cache_us = min(cache_us, key.expire_time_us - now_us)
        duration = Duration()
        duration.FromMicroseconds(cache_us)
        return duration

    async def _renew_hash(self, key: ApiKey, credential: Credential | ImportedSecret) -> None:
        """Keeps the hash of the current pepper, so that an older pepper falls out of use."""
        peppers = self._verifier.peppers
        if key.hash.pepper_id == peppers.current:
            return
        if isinstance(credential, ImportedSecret):
            digest = peppers.hash_secret(credential.text, peppers.current)
        else:
            digest = peppers.hash(credential, peppers.current)
        new = KeyHash(peppers.current, digest)
        renewal = Operation(
            lambda tx: api_keys.rehash(tx, key.key_id, key.hash, new), group=key.account_id
        )
        try:
            await self._store.commit(renewal)
        except StoreError as error:
            # The decision stands; the next one tries again.
            _log.warning("hash_not_renewed", key_id=key.key_id, error=repr(error))


class AccountServicer(pb_grpc.AccountServiceServicer):
    """Accounts and their keys."""

    def __init__(
        self,
        store: Store,
        records: RequestRecords,
        peppers: Peppers,
        environment: str,
        now_us: Clock,
    ) -> None:
        self._store = store
        self._records = records
        self._peppers = peppers
        self._environment = environment
        self._now_us = now_us

    async def CreateAccount(
        self, request: pb.CreateAccountRequest, context: object
    ) -> pb.CreateAccountResponse:
        """Makes an account, and tells its holder about caches and locations."""
        now_us = self._now_us()
        account = Account(
            identifiers.new_account_id(), request.display_name, AccountState.ACTIVE, now_us
        )

        def create(tx: Transaction) -> Message:
            accounts.create(tx, account)
            return pb.CreateAccountResponse(
                account=account_message(account), notices=[notice_message(LOCATION_HOPPING)]
            )

        answer, replayed = await self._once("CreateAccount", request, "", create, now_us)
        response = pb.CreateAccountResponse.FromString(answer)
        response.replayed = replayed
        Call.of(context).note(account_id=response.account.account_id, replayed=replayed)
        return response

    async def GetAccount(
        self, request: pb.GetAccountRequest, context: object
    ) -> pb.GetAccountResponse:
        """One account."""
        del context
        read = await self._store.read(lambda tx: accounts.get(tx, request.account_id))
        return pb.GetAccountResponse(account=account_message(read.result))

    async def ListAccounts(
        self, request: pb.ListAccountsRequest, context: object
    ) -> pb.ListAccountsResponse:
        """A page of accounts."""
        del context
        read = await self._store.read(
            lambda tx: accounts.list_all(tx, size=request.page_size, token=request.page_token)
        )
        page, next_token = read.result
        return pb.ListAccountsResponse(
            accounts=[account_message(account) for account in page], next_page_token=next_token
        )

    async def SetAccountState(
        self, request: pb.SetAccountStateRequest, context: object
    ) -> pb.SetAccountStateResponse:
        """Suspends, reactivates or closes."""
        state = AccountState(request.state)

        def set_state(tx: Transaction) -> Message:
            account = accounts.set_state(tx, request.account_id, state)
            return pb.SetAccountStateResponse(account=account_message(account))

        answer, replayed = await self._once(
            "SetAccountState", request, request.account_id, set_state, self._now_us()
        )
        Call.of(context).note(state=state.name.lower(), replayed=replayed)
        response = pb.SetAccountStateResponse.FromString(answer)
        response.replayed = replayed
        return response

    async def CreateApiKey(
        self, request: pb.CreateApiKeyRequest, context: object
    ) -> pb.CreateApiKeyResponse:
        """Makes a key; only the first answer has its secret."""
        credential = Credential(
            self._environment, identifiers.new_key_id(), identifiers.new_secret()
        )
        now_us = self._now_us()
        key = self._new_key(request, credential, now_us)

        def create(tx: Transaction) -> Message:
            api_keys.create(tx, key)
            return pb.CreateApiKeyResponse(api_key=api_key_message(key))

        answer, replayed = await self._once(
            "CreateApiKey", request, request.account_id, create, now_us
        )
        response = pb.CreateApiKeyResponse.FromString(answer)
        response.replayed = replayed
        if not replayed:
            response.credential = credential.reveal()
        Call.of(context).note(key_id=response.api_key.key_id, replayed=replayed)
        return response

    async def ImportApiKey(
        self, request: pb.ImportApiKeyRequest, context: object
    ) -> pb.ImportApiKeyResponse:
        """Makes a key of a secret that exists; the same import again gives the same key."""
        if request.secret.startswith(OWN_PREFIX):
            rule = f"begins with {OWN_PREFIX}: such a key is made by CreateApiKey"
            raise InvalidArgumentError(violations={"secret": rule})
        secret = ImportedSecret.parse(request.secret).text
        digests = self._peppers.hashes_of_secret(secret)
        now_us = self._now_us()
        key_hash = KeyHash(self._peppers.current, digests[0])
        new = self._key_of(request, identifiers.new_key_id(), key_hash, now_us, imported=True)
        # What is recorded of the request must verify no guess of the secret.
        request.ClearField("secret")

        def create(tx: Transaction) -> Message:
            key, _ = imported_keys.create(tx, new, digests)
            return pb.ImportApiKeyResponse(api_key=api_key_message(key))

        def check(tx: Transaction, answer: bytes) -> None:
            key_id = pb.ImportApiKeyResponse.FromString(answer).api_key.key_id
            found = api_keys.find_imported(tx, digests)
            if found is None or found.key_id != key_id:
                raise RequestIdReusedError(request.request_id)

        answer, replayed = await self._once(
            "ImportApiKey", request, request.account_id, create, now_us, check
        )
        response = pb.ImportApiKeyResponse.FromString(answer)
        response.replayed = replayed or response.api_key.key_id != new.key_id
        Call.of(context).note(key_id=response.api_key.key_id, replayed=response.replayed)
        return response

    async def ListApiKeys(
        self, request: pb.ListApiKeysRequest, context: object
    ) -> pb.ListApiKeysResponse:
        """A page of an account's keys."""
        del context
        read = await self._store.read(
            lambda tx: api_keys.list_of_account(
                tx, request.account_id, size=request.page_size, token=request.page_token
            )
        )
        page, next_token = read.result
        return pb.ListApiKeysResponse(
            api_keys=[api_key_message(key) for key in page], next_page_token=next_token
        )

    async def RevokeApiKey(
        self, request: pb.RevokeApiKeyRequest, context: object
    ) -> pb.RevokeApiKeyResponse:
        """Ends a key for good."""
        Call.of(context).note(key_id=request.key_id)
        now_us = self._now_us()

        def revoke(tx: Transaction) -> Message:
            key = api_keys.revoke(tx, request.key_id, now_us=now_us)
            return pb.RevokeApiKeyResponse(api_key=api_key_message(key))

        answer, replayed = await self._once("RevokeApiKey", request, "", revoke, now_us)
        response = pb.RevokeApiKeyResponse.FromString(answer)
        response.replayed = replayed
        Call.of(context).note(account_id=response.api_key.account_id, replayed=replayed)
        return response

    def _new_key(
        self, request: pb.CreateApiKeyRequest, credential: Credential, now_us: int
    ) -> ApiKey:
        pepper_id = self._peppers.current
        key_hash = KeyHash(pepper_id, self._peppers.hash(credential, pepper_id))
        return self._key_of(request, credential.key_id, key_hash, now_us)

    def _key_of(
        self,
        request: pb.CreateApiKeyRequest | pb.ImportApiKeyRequest,
        key_id: str,
        key_hash: KeyHash,
        now_us: int,
        *,
        imported: bool = False,
    ) -> ApiKey:
        return ApiKey(
            key_id=key_id,
            account_id=request.account_id,
            display_name=request.display_name,
            scopes=tuple(Scope(scope) for scope in request.scopes),
            create_time_us=now_us,
            expire_time_us=expiry_us(request),
            revoke_time_us=None,
            hash=key_hash,
            imported=imported,
        )

    async def _once(
        self,
        method: str,
        request: _Mutation,
        group: str,
        work: Callable[[Transaction], Message],
        now_us: int,
        check: Callable[[Transaction, bytes], None] | None = None,
    ) -> tuple[bytes, bool]:
        """The answer of ``work``, applied once for the request's id, and whether it is a replay."""
        content = fingerprint(method, request.SerializeToString(deterministic=True))

        def run(tx: Transaction) -> tuple[bytes, bool]:
            answer, replayed = self._records.once(
                tx,
                request.request_id,
                content,
                lambda: work(tx).SerializeToString(),
                now_us=now_us,
            )
            if replayed and check is not None:
                check(tx, answer)
            return answer, replayed

        reads = (self._records.key(request.request_id),)
        return (await self._store.commit(Operation(run, group, reads))).result


class _Mutation(Protocol):
    """What every mutating request has."""

    request_id: str

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes:
        """The message's bytes."""
