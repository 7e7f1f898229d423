"""An operator with a node and OVN's databases, and a repository, for all tests of a module."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from gitops_tools import NAMESPACE, ArgoCD, Flux, Manifest, Reference, Repository, of_ours, ours
from operator_rig import SYSTEM, Rig, rig
from virtfleet_api.names import OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME
from virtfleet_api.report import NetworkReport
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.kube_tools import kube_tools
from virtfleet_dev.kubectl import Kubectl
from virtfleet_dev.ovn import NORTHBOUND_PORT, SOUTHBOUND_PORT, OvnCentral
from virtfleet_dev.secret_files import fetch, server_files


@dataclass
class Lab:
    """What a test speaks to."""

    fleet: Rig
    kubectl: Kubectl
    repository: Repository
    folder: Path
    ovn_host: str
    ovn: dict[str, Any]
    """The operator's setting."""

    @property
    def flux(self) -> Flux:
        """Return a Flux that has applied nothing yet."""
        return Flux(self.kubectl, self.repository, self.folder / "flux")

    @property
    def argo(self) -> ArgoCD:
        """Return an Argo CD."""
        return ArgoCD(self.kubectl, self.repository, self.folder / "argo")

    async def start_ovn(self) -> OvnCentral:
        """Start OVN's databases with what the operator has made for them."""
        names = (OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME)
        for name in names:
            await self.eventually(lambda name=name: fetch(self.kubectl, SYSTEM, name, self.folder / name), name)
        central = OvnCentral(self.folder, self.ovn_host, *(server_files(self.folder / name) for name in names))
        await asyncio.to_thread(central.up)
        daemon = self.fleet.nodes["node-a"].daemon
        daemon.network = NetworkReport(connected=True, datapath="system")
        daemon.journal.publish_node(daemon.node_report())
        return central

    async def read(self, kind: str, name: str) -> Manifest | None:
        """Return an object, None if there is none."""
        return await asyncio.to_thread(self.kubectl.get, ours(kind), name, NAMESPACE)

    async def eventually(self, holds: Callable[[], object], what: str) -> None:
        """Poll what is in other processes, with kubectl."""

        async def so() -> bool:
            return bool(await asyncio.to_thread(holds))

        await self.fleet.eventually(so, what)

    async def settle(self, wanted: list[Manifest]) -> None:
        """Wait until the operator has looked at the latest spec of all of these, and changes nothing more."""

        async def seen(one: Manifest) -> bool:
            found = await self.fleet.get(one["kind"], one["metadata"]["name"])
            return bool(found) and found["status"]["observedGeneration"] == found["metadata"]["generation"]

        for one in of_ours(wanted):
            await self.fleet.eventually(lambda one=one: seen(one), f"{one['kind']} {one['metadata']['name']} is seen")

    async def gone(self, references: list[Reference]) -> None:
        """Wait until these are gone."""
        named = [f"{resource}/{name}" for resource, name in references]
        words = ("-n", NAMESPACE, "get", *named, "--ignore-not-found", "-o", "name")
        await self.eventually(lambda: not self.kubectl.run(*words).strip(), "what was pruned is gone")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lab(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    folder = tmp_path_factory.mktemp("gitops")
    # The databases have fixed ports: an address of its own keeps each run's apart.
    host = f"127.{os.getpid() >> 8 & 127 | 1}.{os.getpid() & 255}.1"
    ovn: dict[str, Any] = {"northbound": f"ssl:{host}:{NORTHBOUND_PORT}", "southbound": f"ssl:{host}:{SOUTHBOUND_PORT}"}
    kubectl = Kubectl(kube_tools().kubectl, control_plane.kubeconfig)
    async with rig(control_plane, folder) as fleet:
        await fleet.start_operator(ovn=ovn)
        await fleet.add_node("node-a")
        found = Lab(fleet, kubectl, Repository(folder), folder, host, ovn)
        yield found
        # Nothing is left to the next module, whatever has failed.
        for node in fleet.nodes.values():
            await node.stop()
            await node.start()
        await fleet.clear("VMSnapshotSchedule", "VMRestore", "VMSnapshot", "VirtualMachine", "VMImage")
        await fleet.clear("SecurityGroup", "VirtualSwitch")
