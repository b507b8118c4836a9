"""One edge, put together: the domain once, its two faces, and the order in which they end."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from services.edge.admission import Admission
from services.edge.bans import Bans
from services.edge.cache.catalog import Catalog
from services.edge.cache.disk import DiskCache
from services.edge.cache.memory import MokaCache, bytes_weight
from services.edge.credit.till import open_till
from services.edge.delivery import Sources
from services.edge.door.captures import Captures
from services.edge.door.envoy.servicers import Envoys
from services.edge.door.opening import open_door
from services.edge.downloads import Downloads
from services.edge.fill import Fills
from services.edge.http.accel import Accelerator
from services.edge.http.application import Application
from services.edge.http.cors import Cors
from services.edge.http.door import DoorHandlers
from services.edge.http.downloads import DownloadHandlers
from services.edge.http.fronts import Fronts
from services.edge.http.hits import Hits
from services.edge.http.intake import Intake
from services.edge.http.openapi import DescriptionHandlers
from services.edge.http.operations import add_operations
from services.edge.http.routes import Routes
from services.edge.http.server import HttpServer
from services.edge.http.transfers import HealthHandlers, TransferHandlers
from services.edge.lookup import ObjectLookup
from services.edge.origin import Origin
from services.edge.origins.opening import open_origins
from services.edge.servicer import EdgeServicer
from services.edge.settings import EdgeSettings
from services.edge.upkeep import make_kept
from services.edge.uploads import Uploads
from services.process.logs import get_logger
from services.rpc.server import Limits, Server
from services.rpc.tls import ServerTls

if TYPE_CHECKING:  # the type has no class at run time
    from tollmesh.auth.v1.auth_pb2_grpc import AuthServiceAsyncStub
    from tollmesh.chain.v1.chain_pb2_grpc import ChainServiceAsyncStub
    from tollmesh.credits.v1.credits_pb2_grpc import CreditServiceAsyncStub
    from tollmesh.credits.v1.leases_pb2_grpc import LeaseServiceAsyncStub

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """The services behind an edge."""

    auth: AuthServiceAsyncStub
    credits: CreditServiceAsyncStub
    leases: LeaseServiceAsyncStub
    chain: ChainServiceAsyncStub


class Edge:
    """Made by ``open``; ended by ``drain``, whether it was started or not."""

    def __init__(
        self, settings: EdgeSettings, services: Services, catalog: Catalog, disk: DiskCache
    ) -> None:
        self._settings = settings
        self.disk = disk
        self.memory = MokaCache(settings.memory_bytes, bytes_weight)
        self.origin = Origin(services.chain, idle_s=settings.origin_idle_s)
        self.bans = bans = Bans(catalog, settings.blocked_by)
        self.fills = Fills(self.origin, disk, bans)
        self._till = till = open_till(settings, services.credits, services.leases)
        self.holds, self.payments, ledger = till.holds, till.payments, till.ledger
        self.admission = Admission(services.auth, settings.region)
        self.lookup = ObjectLookup(self.origin, disk, bans, recheck_s=settings.finality_recheck_s)
        self._sources = sources = Sources(
            self.memory,
            disk,
            self.fills,
            self.origin,
            memory_object_bytes=settings.memory_object_bytes,
            range_gap_bytes=settings.range_gap_bytes,
        )
        self.door = open_door(settings, self.admission, self.payments, ledger, disk, bans)
        self.captures = Captures(self.door, settings.capture_log, settings.cache_dir)
        self.origins = open_origins(settings, self.admission, self.payments)
        self.downloads = Downloads(self.payments, sources)
        self.uploads = Uploads(self.holds, self.origin, max_bytes=settings.max_upload_bytes)
        tiers = self.memory, disk, self.fills
        kept = make_kept(settings, catalog, tiers, self.lookup, bans, till, self._cut_off)
        self.pins, self.operations, self.upkeep = kept.pins, kept.operations, kept.upkeep
        self._is_ready = False
        self._intake = Intake(settings.max_concurrent_calls)
        cors = Cors(settings.cors_origins)
        self._application = Application(self._routes(), cors, self._intake, self._fronts)
        self.http = HttpServer(
            self._application,
            listen=settings.listen,
            front_socket=settings.front_socket,
            tls=_http_tls(settings),
            drain_s=settings.drain_s,
            hits=self._hits(cors),
            max_connections=settings.connections,
        )
        self._envoys = Envoys(self.door, keep_credentials=settings.keep_credentials)
        self.grpc = Server(
            listen=settings.grpc_listen,
            servicers=self._servicers(),
            tls=ServerTls.of(settings),
            limits=Limits(settings.max_concurrent_calls, settings.max_message_bytes),
            drain_s=settings.drain_s,
        )

    @classmethod
    async def open(cls, settings: EdgeSettings, services: Services) -> Self:
        """Opens the cache; settles in the background what an earlier process left unsettled.

        Raises CacheInUseError, CatalogVersionError, OSError.
        """
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        catalog = Catalog(settings.cache_dir / "catalog.sqlite3")
        disk = DiskCache(
            settings.cache_dir,
            catalog,
            max_bytes=settings.disk_bytes,
            max_objects=settings.disk_objects,
        )
        await disk.open()
        edge = cls(settings, services, catalog, disk)
        await edge.bans.open()
        await edge.pins.open()
        edge._till.recover()
        return edge

    async def start(self) -> None:
        """Listens with both faces. Raises OSError."""
        await self.grpc.start()
        await self.http.start()
        self.captures.start()
        self.upkeep.start()
        self._is_ready = True

    async def drain(self) -> None:
        """Lets deliveries finish, settles them, and closes the cache, in this order."""
        self._is_ready = False
        self._intake.close()
        reported = self._envoys.drain(self._settings.drain_s)
        reporters = self._envoys.reporters
        await asyncio.gather(self.http.drain(), self.grpc.drain(reporters, reported))
        self._intake.flush()
        await self.upkeep.stop()
        if self.origins is not None:
            await self.origins.close()
        await self.fills.close()
        await self.captures.stop()
        await self.door.close(self._settings.drain_s)
        await self.payments.drain(self._settings.drain_s)
        await self.disk.close()

    def _cut_off(self, cid: str) -> int:
        return self.http.cut_off(cid)

    def _servicers(self) -> list[object]:
        return [self._servicer(), *self._envoys.servicers]

    def _servicer(self) -> EdgeServicer:
        return EdgeServicer(
            self.admission,
            self.lookup,
            self.downloads,
            self.uploads,
            self.pins,
            self.disk,
            self.origin,
            self.operations,
        )

    @cached_property
    def _fronts(self) -> Fronts:
        return Fronts.of(self._settings.front_secret_file)

    @cached_property
    def _accelerator(self) -> Accelerator:
        return Accelerator(
            self._fronts,
            self.admission,
            self.door,
            self.captures,
            self.payments,
            self._sources,
            self.disk,
            prefix=self._settings.accel_prefix,
            region=self._settings.region,
        )

    def _hits(self, cors: Cors) -> Hits:
        return Hits(
            self._intake,
            self.admission,
            self.lookup,
            self._sources,
            self.payments,
            self._accelerator,
            cors,
            region=self._settings.region,
            default_network=self._settings.default_network,
        )

    def _routes(self) -> Routes:
        network = self._settings.default_network
        downloads = DownloadHandlers(
            self.admission,
            self.lookup,
            self.downloads,
            self._accelerator,
            region=self._settings.region,
            default_network=network,
        )
        transfers = TransferHandlers(
            self.admission, self.uploads, self.pins, self.origin, default_network=network
        )
        health = HealthHandlers(lambda: self._is_ready)
        routes = Routes()
        routes.add("GET HEAD", "/objects/{network}/{cid}", downloads.get_object)
        routes.add("POST", "/objects/{network}", transfers.post_object)
        routes.add("GET HEAD", "/objects/{network}/{cid}/status", transfers.get_status)
        routes.add("GET HEAD", "/downloads/{cid}", downloads.get_download)
        routes.add("GET HEAD", "/file/{cid}", downloads.get_file)
        routes.add("GET HEAD", "/{cid}/status", transfers.get_default_status)
        routes.add("PUT", "/pins/{network}/{cid}", transfers.put_pin)
        routes.add("DELETE", "/pins/{network}/{cid}", transfers.delete_pin)
        routes.add("GET HEAD", "/pins", transfers.get_pins)
        add_operations(routes, self.admission, self.operations)
        routes.add("GET HEAD", "/healthz", health.healthz)
        routes.add("GET HEAD", "/readyz", health.readyz)
        door = DoorHandlers(self.door, self.captures)
        routes.add("GET", "/door/authorize", door.authorize)
        routes.add("GET", "/door/auth-request", door.auth_request)
        routes.add("POST", "/door/captures", door.report)
        if self.origins is not None:
            routes.add_tree("origins", "{name}/{path}", self.origins.handle)
        description = DescriptionHandlers(routes, self._settings.region)
        routes.add("GET HEAD", "/openapi.json", description.get_description)
        return routes


def _http_tls(settings: EdgeSettings) -> ssl.SSLContext | None:
    """The context of the HTTP face; with an authority for clients, they must show a certificate."""
    if settings.tls_certificate_file is None or settings.tls_key_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
    if settings.tls_client_ca_file is not None:
        context.load_verify_locations(settings.tls_client_ca_file)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
