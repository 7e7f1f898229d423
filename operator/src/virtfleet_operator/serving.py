"""The servers of a leading operator: enrolment, admission, and the aggregated API, with the certificates they need."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import kopf

from virtfleet_operator.enrolment.authority import Authority
from virtfleet_operator.enrolment.contexts import ServingPair
from virtfleet_operator.enrolment.northbound_files import NorthboundAccess, NorthboundFiles
from virtfleet_operator.enrolment.ovn_trust import Southbound, keep_database_certificates, load_ovn_authorities
from virtfleet_operator.enrolment.server import EnrolmentServer
from virtfleet_operator.enrolment.service import Enrolment
from virtfleet_operator.fleet.members import Fleet
from virtfleet_operator.handlers.admission import CONFIGURATION_NAME, ServiceTarget, ServingFiles
from virtfleet_operator.kube.api_service import SERVICE_NAME, Endpoint, ensure_api_service
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.endpoints import ServedService, ServiceEndpoints
from virtfleet_operator.kube.enrolment import EnrolmentCluster
from virtfleet_operator.kube.errors import KubeError
from virtfleet_operator.kube.nodes import ensure_node
from virtfleet_operator.metrics import Metrics
from virtfleet_operator.ovn.connection import OvnTls, use_tls
from virtfleet_operator.ovn.northbound import Northbound
from virtfleet_operator.reconcile.controller import Controller
from virtfleet_operator.reconcile.network import Network
from virtfleet_operator.settings import Settings
from virtfleet_operator.subresources.cluster import KubeCluster
from virtfleet_operator.subresources.server import KeyPair, SubresourceServer

log: Final = logging.getLogger(__name__)

REFRESH_SECONDS: Final = 300.0
"""How long a registration that somebody has changed, or an old certificate, may stay in use."""

RETRY_SECONDS: Final = 5.0

_LISTEN_POLL_SECONDS: Final = 0.1

Parts = dict[str, Coroutine[Any, Any, None]]


async def repeat(what: str, act: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Act at intervals, sooner after a failure of the API server, until cancelled."""
    while True:
        delay = seconds
        try:
            await act()
        except KubeError as error:
            log.warning("Retrying %s", what, extra={"action": what, "reason": str(error)})
            delay = min(RETRY_SECONDS, seconds)
        await asyncio.sleep(delay)


def build_subresources(
    settings: Settings, client: KubeClient, authority: Authority, fleet: Fleet, stack: AsyncExitStack
) -> Parts:
    """Return what serves the aggregated API and keeps it registered; nothing if it is disabled."""
    own = settings.subresources
    if not own.enabled:
        return {}
    endpoint = _build_endpoint(settings)
    listener = stack.enter_context(socket.create_server((own.host, own.port), reuse_port=True))

    pair = ServingPair(authority, (endpoint.dns_name,))

    def serving() -> KeyPair:
        return KeyPair(pair().certificate, pair().key)

    server = SubresourceServer(listener, KubeCluster(client), fleet, serving, uploads=fleet, counters=fleet)
    register = repeat(
        "register", lambda: ensure_api_service(client, endpoint, authority.ca_pem.encode()), REFRESH_SECONDS
    )
    return {"subresources": server.run(), "registration": register}


def _build_endpoint(settings: Settings) -> Endpoint:
    own = settings.subresources
    return Endpoint(settings.namespace, own.service_port or own.port, own.external_name)


def served_services(settings: Settings) -> tuple[ServedService, ...]:
    """Return the Services that lead to this operator while it leads."""
    found: list[ServedService] = []
    if settings.enrolment.service:
        found.append(ServedService(settings.enrolment.service.name, settings.enrolment.port))
    if settings.webhook.enabled and settings.webhook.service:
        found.append(ServedService(settings.webhook.service.name, settings.webhook.port))
    if settings.subresources.enabled and not settings.subresources.external_name:
        found.append(ServedService(SERVICE_NAME, settings.subresources.port))
    return tuple(found)


def build_endpoints(settings: Settings, client: KubeClient, stack: AsyncExitStack) -> Parts:
    """Return what has the Services lead here; nothing if this process does not know its address."""
    if settings.address is None:
        return {}
    endpoints = ServiceEndpoints(client, settings.namespace, str(settings.address), served_services(settings))

    async def keep() -> None:
        await _all_listen(settings)
        await repeat("lead the Services here", endpoints.ensure, REFRESH_SECONDS)

    async def withdraw() -> None:
        try:
            await endpoints.withdraw()
        except KubeError as error:
            log.warning("Leaving the Services as they are", extra={"action": "withdraw", "reason": str(error)})

    stack.push_async_callback(withdraw)
    return {"endpoints": keep()}


async def _all_listen(settings: Settings) -> None:
    """Wait until every server takes connections: kopf says of its webhook's neither when nor whether it does."""
    where = [(settings.enrolment.host, settings.enrolment.port)]
    where += [(own.host, own.port) for own in (settings.webhook, settings.subresources) if own.enabled]
    for host, port in where:
        while True:
            try:
                _, writer = await asyncio.open_connection(host, port)
            except OSError:
                await asyncio.sleep(_LISTEN_POLL_SECONDS)
            else:
                writer.close()
                break


def build_webhook(settings: Settings, authority: Authority, folder: Path, admission: kopf.OperatorSettings) -> Parts:
    """Tell kopf how to serve admission; return what keeps its certificate current."""
    own = settings.webhook
    if not own.enabled:
        return {}
    target = ServiceTarget(settings.namespace, own.service.name, own.service.port) if own.service else None
    name = _webhook_name(settings)
    files = ServingFiles(folder)

    pair = ServingPair(authority, (name,))

    def write() -> None:
        files.write(pair().certificate, pair().key, authority.ca_pem.encode())

    async def refresh() -> None:
        write()

    write()
    admission.admission.server = files.build_server(own.host, own.port, name, target)
    admission.admission.managed = CONFIGURATION_NAME
    return {"webhook certificate": repeat("refresh", refresh, REFRESH_SECONDS)}


@dataclass(frozen=True)
class OvnTrust:
    """What the operator needs of OVN's authorities."""

    northbound: NorthboundFiles
    """The operator's own certificate at the northbound database."""
    southbound: Southbound
    """What nodes that enrol are told and given."""
    parts: Parts
    """What keeps certificates current."""


async def load_ovn_trust(settings: Settings, client: KubeClient, stack: AsyncExitStack) -> OvnTrust | None:
    """Load OVN's authorities, and keep the files of a northbound client for as long as the stack lasts.

    Returns:
        None if no network engine is configured.

    Raises:
        AuthorityError: Secret virtfleet-ovn cannot be used.
    """
    if settings.ovn is None:
        return None
    names = settings.ovn.names
    secrets = EnrolmentCluster(client, settings.namespace)
    authorities = await load_ovn_authorities(secrets)
    access = stack.enter_context(NorthboundAccess(authorities.northbound))

    async def keep() -> None:
        access.refresh()
        await keep_database_certificates(secrets, authorities, names)

    parts: Parts = {"certificates of OVN": repeat("keep certificates of OVN", keep, REFRESH_SECONDS)}
    return OvnTrust(access.files, Southbound(authorities.southbound, settings.ovn.southbound), parts)


def build_network(settings: Settings, trust: OvnTrust | None, controller: Controller) -> tuple[Network | None, Parts]:
    """Return the network and what writes it to OVN; nothing if no network engine is configured."""
    if settings.ovn is None or trust is None:
        return None, {}
    files = trust.northbound
    use_tls(OvnTls(files.key, files.certificate, files.ca))
    northbound = Northbound(settings.ovn.northbound, controller.rows_changed)
    return Network(northbound, controller), {"northbound database": northbound.run(), **trust.parts}


async def start_enrolment(
    settings: Settings,
    client: KubeClient,
    authority: Authority,
    southbound: Southbound | None,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> None:
    """Serve enrolment for as long as the stack lasts."""
    own = settings.enrolment
    enrolment = Enrolment(
        EnrolmentCluster(client, settings.namespace),
        authority,
        partial(ensure_node, client),
        namespace=settings.namespace,
        reserved=serving_names(settings),
        southbound=southbound,
    )
    server = EnrolmentServer(enrolment, ServingPair(authority, own.names or (own.host,)), metrics.registry)
    stack.push_async_callback(server.stop)
    await server.start(own.host, own.port)


def serving_names(settings: Settings) -> tuple[str, ...]:
    """Return the names of the operator's own servers, which no node may be called by."""
    return (*settings.enrolment.names, _webhook_name(settings), _build_endpoint(settings).dns_name)


def _webhook_name(settings: Settings) -> str:
    own = settings.webhook
    return f"{own.service.name}.{settings.namespace}.svc" if own.service else own.url_host or own.host
