"""What runs while this process leads, in the order in which it starts and ends."""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiohttp
import kopf

from virtfleet_operator.enrolment.authority import Authority, load_authority
from virtfleet_operator.enrolment.contexts import ClientTls
from virtfleet_operator.fleet.client import Dialer
from virtfleet_operator.fleet.members import Fleet
from virtfleet_operator.gauges import count_nodes, count_objects
from virtfleet_operator.handlers.running import run_kopf
from virtfleet_operator.handlers.watch import WatchActivity, register, register_login
from virtfleet_operator.health import Health
from virtfleet_operator.kube.cache import Cache
from virtfleet_operator.kube.claims import ClaimReader
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import Connection
from virtfleet_operator.kube.enrolment import EnrolmentCluster
from virtfleet_operator.kube.events import EventRecorder
from virtfleet_operator.kube.lease import LeaderLease
from virtfleet_operator.kube.pods import HolderPods
from virtfleet_operator.kube.secrets import SecretReader
from virtfleet_operator.kube.sync import Resync, fill
from virtfleet_operator.metrics import Metrics
from virtfleet_operator.reconcile.catalog import INDEXERS, NODE, CacheCatalog
from virtfleet_operator.reconcile.context import Context, Volumes
from virtfleet_operator.reconcile.controller import Controller
from virtfleet_operator.reconcile.loads import Loads
from virtfleet_operator.reconcile.network import Network
from virtfleet_operator.serving import (
    Parts,
    build_endpoints,
    build_network,
    build_subresources,
    build_webhook,
    load_ovn_trust,
    start_enrolment,
)
from virtfleet_operator.settings import Settings, build_kopf_settings
from virtfleet_operator.webhooks import register as register_webhooks

KOPF_END_SECONDS: Final = 10.0
"""kopf waits 5 s for tasks that hang."""


def utc_now() -> datetime:
    """Return the time; the only clock that decisions are given."""
    return datetime.now(UTC)


class Leading:
    """A leading operator."""

    def __init__(
        self,
        settings: Settings,
        connection: Connection,
        client: KubeClient,
        lease: LeaderLease,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._settings = settings
        self._connection = connection
        self._client = client
        self._lease = lease
        self._metrics = metrics
        self._health = health
        self._cache = Cache(INDEXERS)
        self._resync = Resync(client, self._cache)
        self._catalog = CacheCatalog(self._cache)
        self._loads = Loads(self._cache, self._catalog)
        self._controller = Controller(self._cache, metrics)
        self._fleet: Fleet | None = None
        self._authority: Authority | None = None
        self._network: Network | None = None

    async def run(self, stop: asyncio.Event, kopf_started: Callable[[], None]) -> None:
        """Lead until asked to stop, or until a part ends by itself, which is an error.

        Raises:
            KubeError: the API server lacks what is needed.
        """
        async with AsyncExitStack() as stack:
            cluster = EnrolmentCluster(self._client, self._settings.namespace)
            authority = self._authority = await load_authority(cluster, utc_now)
            ovn = await load_ovn_trust(self._settings, self._client, stack)
            await fill(self._client, self._cache)
            fleet = await self._build_fleet(authority, stack)
            events = EventRecorder(self._client, self._settings.identity)
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="virtfleet-")))
            kopf_settings = build_kopf_settings()
            network, network_parts = build_network(self._settings, ovn, self._controller)
            self._network = network
            volumes = self._build_volumes()
            if volumes:
                await volumes.pods.fill()
            parts: Parts = {
                "controller": self._controller.run(self._build_context(authority, fleet, events, network, volumes)),
                "events": events.run(),
                "resync": self._resync.run(),
                **build_subresources(self._settings, self._client, authority, fleet, stack),
                **build_webhook(self._settings, authority, folder, kopf_settings),
                **build_endpoints(self._settings, self._client, stack),
                **network_parts,
                **({"pods": volumes.pods.run()} if volumes else {}),
            }
            southbound = ovn.southbound if ovn else None
            await start_enrolment(self._settings, self._client, authority, southbound, self._metrics, stack)
            await self._run_parts(parts, kopf_settings, stop, kopf_started)

    def refresh_gauges(self) -> None:
        """Count what is cheaper to count when somebody asks."""
        self._metrics.leader_epoch.set(self._lease.epoch if self._fleet else 0)
        count_nodes(self._metrics, self._fleet or ())
        count_objects(self._metrics, self._cache)
        if self._authority is not None:
            ends = self._authority.certificate.not_valid_after_utc
            self._metrics.authority_expiry.labels("virtfleet-ca").set(ends.timestamp())
        if self._network is not None:
            self._metrics.northbound.labels("OVN_Northbound").set(self._network.trouble is None)

    async def _build_fleet(self, authority: Authority, stack: AsyncExitStack) -> Fleet:
        """Follow every node from the start: a machine is judged by what its node says, not by its silence."""
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        dialer = Dialer(session, ClientTls(authority), self._lease.epoch)
        fleet = self._fleet = Fleet(dialer, self._controller, lambda _: self._lease.doubt.set())
        stack.push_async_callback(fleet.close)
        for stored in self._cache.all(NODE):
            if stored.status.address:
                fleet.ensure(stored.key.name, stored.status.address)
        return fleet

    def _build_volumes(self) -> Volumes | None:
        own = self._settings.volumes
        if not own.enabled:
            return None
        pods = HolderPods(self._client, self._controller.holder_changed)
        return Volumes(pods, ClaimReader(self._client), own.image, self._controller.queue.add_after)

    def _build_context(
        self,
        authority: Authority,
        fleet: Fleet,
        events: EventRecorder,
        network: Network | None,
        volumes: Volumes | None,
    ) -> Context:
        context = Context(
            client=self._client,
            cache=self._cache,
            catalog=self._catalog,
            loads=self._loads,
            fleet=fleet,
            secrets=SecretReader(self._client),
            events=events,
            metrics=self._metrics,
            clock=utc_now,
            keep_unused_images=timedelta(seconds=self._settings.images.keep_unused_seconds),
            address_cool_down=timedelta(seconds=self._settings.network.address_cool_down_seconds),
            strategy=self._settings.placement.strategy,
            operator_addresses=tuple(str(address) for address in self._settings.network.operator_addresses),
            device_rules=self._settings.devices,
            network=network,
            volumes=volumes,
            copy_key=authority.derive_key("copies of images"),
        )
        self._catalog.find_room = context.room
        return context

    def _build_registry(self, activity: WatchActivity) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        register(registry, self._cache)
        register_login(registry, self._connection, activity)
        if self._settings.webhook.enabled:
            register_webhooks(registry, lambda: self._catalog, utc_now)
        return registry

    async def _run_parts(
        self, parts: Parts, settings: kopf.OperatorSettings, stop: asyncio.Event, kopf_started: Callable[[], None]
    ) -> None:
        activity = WatchActivity(self._resync.ask)
        kopf_stop = asyncio.Event()
        tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
        watching = asyncio.create_task(run_kopf(self._build_registry(activity), settings, kopf_stop, kopf_started))
        stopping = asyncio.create_task(stop.wait(), name="stop")
        self._health.checks.append(activity.problem)
        self._health.ready = True
        try:
            done, _ = await asyncio.wait({*tasks, watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopping}:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended by itself")
        finally:
            self._health.ready = False
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # kopf ends last: it ends every task that was made while it ran, and takes the webhook down by itself.
            kopf_stop.set()
            await asyncio.wait({watching}, timeout=KOPF_END_SECONDS)
