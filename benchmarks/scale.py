"""Memory and CPU time of operator and daemon with 1, 100 and 1,000 machines, on libvirt's test driver.

The test driver has no guests: what is measured is the product's own cost. It lives inside the daemon's process, so the
daemon's figures contain the driver's memory of its domains.
"""

import asyncio
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import aiohttp
from benchmarks.process import Cost, read_cost
from benchmarks.start import MACHINES, build_machine

from virtfleet_api.machine import Hardware, Machine, Run
from virtfleet_api.node_api import Snapshot
from virtfleet_api.report import Phase
from virtfleet_api.virtual_machine_status import PrintableStatus
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.configuration import OPERATOR_NAMESPACE
from virtfleet_dev.process import Program
from virtfleet_operator.enrolment.authority import load_authority
from virtfleet_operator.enrolment.contexts import ClientTls
from virtfleet_operator.fleet.client import Dialer, NodeClient
from virtfleet_operator.kube.client import KubeClient
from virtfleet_operator.kube.connection import read_connection
from virtfleet_operator.kube.enrolment import EnrolmentCluster
from virtfleet_operator.kube.paths import OUR_PATHS

COUNTS: Final = (1, 100, 1000)
WRITERS: Final = 16
PATIENCE_SECONDS: Final = 600.0
OVERCOMMIT: Final = {"cpu": "99", "memory": "9.9"}
"""198 machines with one vCPU on a node of two CPUs."""

FUTURE_EPOCH: Final = 2**31 - 1
"""Above that of any operator."""


@dataclass(frozen=True)
class Load:
    """Cost with this many machines, and how long the last of them took to be Running."""

    machines: int
    seconds: float
    cost: Cost


async def measure_operator(cluster: Cluster) -> list[Load]:
    """Create machines through the API server until so many run."""
    loads: list[Load] = []
    async with KubeClient(await read_connection(cluster.kubectl.kubeconfig)) as client:
        for node in cluster.nodes:
            await client.patch(OUR_PATHS["VMNode"].object("", node.name), {"spec": {"overcommit": OVERCOMMIT}})
        for count in COUNTS:
            begin = time.perf_counter()
            await _create(client, loads[-1].machines if loads else 0, count)
            await _until_running(client, count)
            loads.append(Load(count, time.perf_counter() - begin, _cost(cluster.operator)))
    return loads


async def measure_daemon(cluster: Cluster) -> list[Load]:
    """Instruct one daemon as its operator would, which is stopped for it."""
    cluster.operator.stop()
    loads: list[Load] = []
    async with KubeClient(await read_connection(cluster.kubectl.kubeconfig)) as client, aiohttp.ClientSession() as http:
        authority = await load_authority(EnrolmentCluster(client, OPERATOR_NAMESPACE), lambda: datetime.now(UTC))
        node = cluster.nodes[0]
        address = (await client.get(OUR_PATHS["VMNode"].object("", node.name)))["status"]["address"]
        daemon = NodeClient(Dialer(http, ClientTls(authority), FUTURE_EPOCH), node.name, address)
        for count in COUNTS:
            begin = time.perf_counter()
            already = loads[-1].machines if loads else 0
            await asyncio.gather(*(daemon.put_machine(_document(number)) for number in range(already, count)))
            await _until_reported(daemon, count)
            loads.append(Load(count, time.perf_counter() - begin, _cost(cluster.daemon(node))))
    return loads


def _cost(program: Program) -> Cost:
    pid = program.inner_pid
    if pid is None:
        raise ProcessLookupError(f"{program.name} is down")
    return read_cost(pid)


async def _create(client: KubeClient, first: int, end: int) -> None:
    slots = asyncio.Semaphore(WRITERS)

    async def create(number: int) -> None:
        async with slots:
            body = build_machine(f"many-{number}", memory={"guest": "64Mi"}, guestAgent=False)
            await client.create(MACHINES.collection("default"), body)

    await asyncio.gather(*(create(number) for number in range(first, end)))


async def _until_running(client: KubeClient, count: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await _count_running(client) < count:
            await asyncio.sleep(min(1.0, count / 100))


async def _count_running(client: KubeClient) -> int:
    words = [
        item.get("status", {}).get("printableStatus")
        async for page in client.list_pages(MACHINES.collection("default"))
        for item in page["items"]
    ]
    return words.count(PrintableStatus.RUNNING)


async def _until_reported(daemon: NodeClient, count: int) -> None:
    running: set[str] = set()
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in daemon.watch(None, PATIENCE_SECONDS):
            reports = event.machines if isinstance(event, Snapshot) else (getattr(event, "machine", None),)
            running.update(report.uid for report in reports if report and report.phase is Phase.RUNNING)
            if len(running) >= count:
                return


def _document(number: int) -> Machine:
    return Machine(
        uid=str(uuid.UUID(int=number + 1, version=4)),
        namespace="default",
        name=f"many-{number}",
        run=Run.RUNNING,
        hardware=Hardware(memory_bytes=64 << 20),
    )
