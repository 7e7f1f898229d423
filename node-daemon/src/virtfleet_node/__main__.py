"""The node daemon's process: wire the parts, serve until SIGTERM, leave every guest running."""

import argparse
import asyncio
import contextlib
import logging
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import REGISTRY, start_http_server

from virtfleet_api.report import NodeReport
from virtfleet_node.agent.cells import Cells
from virtfleet_node.agent.daemon import NodeDaemon
from virtfleet_node.agent.device_table import DeviceTable
from virtfleet_node.agent.metrics import Sources, register
from virtfleet_node.agent.node import NodeDescription
from virtfleet_node.agent.node_metrics import NodeFacts, NodeState
from virtfleet_node.agent.queue_metrics import QueueMetrics
from virtfleet_node.agent.relay import Relay
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.switch import Edges, NodeSwitch
from virtfleet_node.agent.taken_devices import TakenDevices
from virtfleet_node.api.copies import CopyServer
from virtfleet_node.api.epoch import EpochGuard
from virtfleet_node.api.identity import Identity
from virtfleet_node.api.journal import Journal
from virtfleet_node.api.metrics import ApiMetrics
from virtfleet_node.api.server import Server
from virtfleet_node.config import Config, OwnFacts, read_config
from virtfleet_node.core.desired.guest import DomainType
from virtfleet_node.core.host_cpu import HostCpu
from virtfleet_node.core.network import Southbound
from virtfleet_node.core.pool_rules import PoolRules
from virtfleet_node.host.devices import Devices
from virtfleet_node.host.firewall import Firewall
from virtfleet_node.host.inventory import read_inventory
from virtfleet_node.host.nftables import Nftables
from virtfleet_node.host.numa import read_cells
from virtfleet_node.host.open_vswitch import OpenVSwitch
from virtfleet_node.host.programs import Programs
from virtfleet_node.hypervisor.hypervisor import Hypervisor
from virtfleet_node.logs import configure_logging
from virtfleet_node.storage.disks import DiskStore
from virtfleet_node.storage.images import ImageStore
from virtfleet_node.storage.media import MediaStore
from virtfleet_node.storage.pools import Pools
from virtfleet_node.storage.volumes import Volumes
from virtfleet_node.storage.wanted_pools import WantedPools

_LOG = logging.getLogger("virtfleet_node")


async def serve(config: Config) -> None:
    """Serve until the process is asked to end."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    config.state_directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    relay, hypervisor = Relay(), Hypervisor(config.libvirt_uri)
    identity = Identity(config)
    enrolment = asyncio.create_task(identity.ensure())
    await _until(stop, asyncio.create_task(hypervisor.start(relay)))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(hypervisor.stop)
        daemon, journal, images = await build_daemon(config, hypervisor, identity)
        relay.target = daemon
        stack.push_async_callback(daemon.stop)
        await daemon.start()
        await _until(stop, enrolment)
        daemon.enrolled()
        guard, metrics = EpochGuard(config.state_directory / "epoch"), ApiMetrics(REGISTRY)
        server = Server(daemon, journal, guard, metrics, images, daemon.forwards)
        stack.push_async_callback(server.stop)
        port = await server.start(config.listen.host, config.listen.port, identity.context)
        _LOG.info("Serving operators", extra={"node": config.node_name, "host": config.listen.host, "port": port})
        await _serve_copies(config, identity, images, stack)
        renewal = asyncio.create_task(identity.keep())
        await stop.wait()
        renewal.cancel()
        _LOG.info("Stopping; guests run on", extra={"node": config.node_name})


async def _serve_copies(
    config: Config, identity: Identity, images: ImageStore, stack: contextlib.AsyncExitStack
) -> None:
    """Let other nodes copy images from here. Without it they ask the source, so a port that is taken stops nothing."""
    copies, where = CopyServer(images), config.copy_listen
    stack.push_async_callback(copies.stop)
    try:
        await copies.start(where.host, where.port, identity.copy_context)
    except OSError as error:
        _LOG.error("Other nodes cannot copy images from here", extra={"port": where.port, "reason": str(error)})


async def build_daemon(
    config: Config, hypervisor: Hypervisor, identity: Identity
) -> tuple[NodeDaemon, Journal, ImageStore]:
    """Return the daemon, the journal it publishes to and its images, for a hypervisor that is connected."""
    rules = {pool.name: PoolRules(pool.type, pool.overcommit, pool.watermark) for pool in config.pools}
    pools = Pools({pool.name: pool.path for pool in config.pools}, rules)
    pools.prepare()
    wanted_pools = WantedPools(pools, config.state_directory / "pools.json", config.roots)
    wanted_pools.start()
    disks = DiskStore(pools)
    inventory = read_inventory(cpu_frequency_hz=config.cpu_frequency)
    if not inventory.cpu_frequency_hz:
        _LOG.warning("Limits and reservations of CPU do not hold: name cpuFrequency in the configuration file")
    cpu = HostCpu(inventory.cpu_frequency_hz, inventory.cpus, inventory.weight_scale)
    facts = replace(await hypervisor.read_facts(config.state_directory), cpu=cpu)
    switch = build_switch(config, identity)
    versions = await hypervisor.read_versions()
    # libvirt's test driver has no threads to pin and no memory to place.
    cells = Cells(tuple if facts.domain_type is DomainType.TEST else read_cells)
    taken = TakenDevices(config.state_directory / "devices.json")
    devices = DeviceTable(hypervisor, taken, draws=bool(facts.render_node))
    node = NodeDescription(config, inventory, facts, versions, pools, lambda: switch.report, devices.reports)
    node.read_cells = lambda: cells.found or read_cells()

    def describe() -> NodeReport:
        return node.report(connected=hypervisor.connected)

    journal, images = Journal(describe()), ImageStore(pools, disks, peer_tls=identity.peer_context)
    around = Surroundings(
        hypervisor=hypervisor,
        facts=facts,
        pools=pools,
        wanted_pools=wanted_pools,
        disks=disks,
        volumes=Volumes(config.kubelet_directory, facts.qemu_user),
        images=images,
        media=MediaStore(config.state_directory),
        switch=switch,
        devices=devices,
        journal=journal,
        state_directory=config.state_directory,
        now=lambda: datetime.now(UTC),
        cells=cells,
    )
    daemon = NodeDaemon(around, describe, QueueMetrics(REGISTRY))
    register(REGISTRY, build_sources(node, daemon, around, identity))
    return daemon, journal, images


def build_sources(node: NodeDescription, daemon: NodeDaemon, around: Surroundings, identity: Identity) -> Sources:
    """Return where the figures for Prometheus come from."""
    inventory = node.inventory
    return Sources(
        facts=NodeFacts(
            name=node.config.node_name,
            libvirt_version=node.versions.libvirt,
            qemu_version=node.versions.qemu,
            hypervisor=node.facts.domain_type,
            cpus=inventory.cpus,
            cpu_frequency_hz=inventory.cpu_frequency_hz,
            memory_bytes=inventory.memory_bytes,
        ),
        state=NodeState(
            libvirt_connected=lambda: around.hypervisor.connected,
            certificate_expires_at=lambda: identity.expires_at,
            network=node.read_network,
            has_southbound=lambda: identity.southbound() is not None,
        ),
        machines=daemon.list_machines,
        cpus=lambda: daemon.cpu.figures,
        pools=around.pools.reports,
        disks=lambda: daemon.storage.disks,
        disk_io=lambda: daemon.disk_io.figures,
        cards=lambda: daemon.traffic.figures,
        cells=lambda: around.cells.found,
        moves=lambda: daemon.numa.moves,
    )


def build_switch(config: Config, identity: Identity) -> NodeSwitch:
    """Return what keeps the host's Open vSwitch and firewall."""

    def southbound() -> Southbound | None:
        files = identity.southbound()
        return Southbound(files.remote, str(files.key), str(files.certificate), str(files.ca)) if files else None

    programs = Programs()
    ports = (config.listen.port, config.copy_listen.port)
    firewall = Firewall(Nftables(programs), ports, enabled=config.firewall.enabled)
    edges = Edges(OpenVSwitch(programs), Devices(programs), firewall)
    return NodeSwitch(edges, config.state_directory / "network.json", southbound)


async def _until(stop: asyncio.Event, task: "asyncio.Task[None]") -> None:
    """Wait for something that may take for ever, or end the process when it is asked to."""
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        task.cancel()
        raise SystemExit(0)
    await task


def main() -> None:
    """Run the daemon."""
    parser = argparse.ArgumentParser(prog="virtfleet-node", description="Runs machines for an operator.")
    parser.add_argument("--config", type=Path, default=Path("/etc/virtfleet/node.yaml"), help="configuration file")
    parser.add_argument("--node-name", help="name of this node, instead of the file's nodeName")
    parser.add_argument("--address", help="IP address of this node, for the hosts that the file does not name")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    arguments = parser.parse_args()
    configure_logging(arguments.log_level)
    try:
        config = read_config(arguments.config, OwnFacts(arguments.node_name, arguments.address))
    except (OSError, ValueError) as error:
        sys.exit(f"{arguments.config}: {error}")
    if config.metrics is not None:
        start_http_server(config.metrics.port, config.metrics.host)
    asyncio.run(serve(config))


if __name__ == "__main__":
    main()
