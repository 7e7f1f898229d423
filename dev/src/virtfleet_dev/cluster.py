"""A whole cluster in a directory: control plane, operator, nodes with daemons, a web server with guest images."""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from virtfleet_dev import configuration
from virtfleet_dev.configuration import OPERATOR_NAMESPACE, OPERATOR_USER, Ports
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.fabric import Fabric, node_name
from virtfleet_dev.guest_image import FILES, guest_files
from virtfleet_dev.kubectl import Kubectl, KubectlError
from virtfleet_dev.node import Node
from virtfleet_dev.ovn import OvnCentral
from virtfleet_dev.paths import checkout, program
from virtfleet_dev.process import Program, wait_until
from virtfleet_dev.secret_files import fetch, server_files

_OVN_SECRETS = ("virtfleet-ovn-northbound-tls", "virtfleet-ovn-southbound-tls")
_IMAGES_PORT = 80
ENROL_SECONDS = 90.0  # KVM is probed first, for seconds, where it exists and hangs

Say = Callable[[str], None]


def silent(_: str) -> None:
    """Say nothing."""


class Cluster:
    """Everything that `up` starts. State lives in the directory, so any process can pick the cluster up again."""

    def __init__(self, directory: Path, say: Say = silent, libvirt_uri: str | None = None) -> None:
        """Take the directory that holds it all; `libvirt_uri` replaces the nodes' own libvirtd for their daemons."""
        self.directory = directory.resolve()
        self.libvirt_uri = libvirt_uri or "qemu:///system"
        self.say = say
        self.control_plane = ControlPlane(self.directory)
        self.operator = Program("operator", self.directory)
        self.image_server = Program("images", self.directory)
        self.secret_files = Program("ovn-secrets", self.directory)

    @cached_property
    def fabric(self) -> Fabric:
        """Return the network between the nodes."""
        return Fabric.of(self.directory)

    @cached_property
    def ovn(self) -> OvnCentral:
        """Return OVN's central part, which serves with what the operator has put into Secrets."""
        northbound, southbound = (server_files(self._secrets / name) for name in _OVN_SECRETS)
        return OvnCentral(self.directory, self.fabric.host_address, northbound, southbound)

    @property
    def _secrets(self) -> Path:
        return self.directory / "secrets"

    @property
    def kubectl(self) -> Kubectl:
        """Return kubectl as the administrator."""
        return self.control_plane.kubectl

    @property
    def images(self) -> Path:
        """Return the folder that the nodes see as http://images.virtfleet.test/."""
        return self.directory / "images"

    def node(self, number: int) -> Node:
        """Return the node with this number, counted from 1."""
        name = node_name(number)
        return Node(name, number, self.fabric, self.directory / "nodes" / name, network_engine=True)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Return the nodes that have been started."""
        folder = self.directory / "nodes"
        names = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
        return tuple(self.node(ord(name[-1]) - ord("a") + 1) for name in names)

    def daemon(self, node: Node) -> Program:
        """Return the node's daemon."""
        return Program(f"{node.name}-daemon", self.directory)

    def up(self, nodes: int) -> None:
        """Start all that does not run, and wait until every node is Ready."""
        self.say("Starting etcd and kube-apiserver")
        self.control_plane.up()
        self.install_api()
        self.say("Starting the operator")
        self.fabric.up()
        self.start_operator()
        self.say("Starting OVN's databases and ovn-northd")
        self.start_ovn()
        self.say("Starting the web server with guest images")
        self.start_image_server()
        for number in range(1, nodes + 1):
            self.say(f"Starting {node_name(number)} with its libvirtd, Open vSwitch and daemon")
            self.start_node(self.node(number))
        for number in range(1, nodes + 1):
            self.wait_node_ready(node_name(number))
        self._link_programs()

    def down(self) -> None:
        """Stop all of it, whatever of it fails to; what it kept in the directory's `log` stays."""
        with ExitStack() as last_first:
            last_first.callback(self.fabric.down)
            last_first.callback(self.control_plane.down)
            last_first.callback(self.ovn.down)
            for one in (self.operator, self.image_server, self.secret_files):
                last_first.callback(one.stop)
            for node in self.nodes:
                last_first.callback(node.down)
                last_first.callback(self.daemon(node).stop)

    def remove(self) -> None:
        """Stop all of it and remove the directory."""
        self.down()
        shutil.rmtree(self.directory, ignore_errors=True)

    def install_api(self) -> None:
        """Apply the CRDs, the operator's namespace and its rights."""
        crds = sorted((checkout() / "crds").glob("virtfleet.io_*.yaml"))
        self.kubectl.run("apply", *(word for path in crds for word in ("-f", str(path))))
        self.kubectl.run("wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{_crd_name(p)}" for p in crds))
        self.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OPERATOR_NAMESPACE}})
        self.kubectl.run("apply", "-f", str(checkout() / "operator" / "rbac.yaml"))

    def start_operator(self) -> None:
        """Start the operator and wait until the fleet's certificate authority is published."""
        ports = self.control_plane.ports
        config = self.operator_config("operator", Ports(ports["webhook"], ports["subresources"], ports["metrics"]))
        self.operator.start([program("virtfleet-operator"), "--config", config], kept=True)
        wait_until(lambda: self.ca_pem() is not None, 60, "the operator's certificate authority", self.operator)

    def start_ovn(self) -> None:
        """Start OVN's central part with the operator's Secrets, which are followed from then on."""
        for name in _OVN_SECRETS:
            folder = self._secrets / name
            wait_until(
                lambda name=name, folder=folder: fetch(self.kubectl, OPERATOR_NAMESPACE, name, folder),  # type: ignore[misc]
                60,
                f"Secret {name}",
                self.operator,
            )
        self.ovn.up()
        where = (self.kubectl.binary, self.kubectl.kubeconfig, OPERATOR_NAMESPACE, self._secrets)
        self.secret_files.start([sys.executable, "-m", "virtfleet_dev.secret_files", *where, *_OVN_SECRETS], kept=True)

    def operator_config(self, identity: str, ports: Ports) -> Path:
        """Write the configuration of an operator process and return its path."""
        user = self.control_plane.write_kubeconfig(self.directory / "pki" / "operator.kubeconfig", OPERATOR_USER, None)
        content = configuration.operator_configuration(self.fabric, identity, user, ports)
        path = self.directory / f"{identity}.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    def start_image_server(self) -> None:
        """Serve the test guest, and whatever else is put into `images`."""
        self.images.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            link = self.images / name
            link.unlink(missing_ok=True)
            link.symlink_to(guest_files() / name)
        command = [sys.executable, "-m", "virtfleet_dev.images", self.fabric.host_address, str(_IMAGES_PORT)]
        self.image_server.start([*command, self.images], kept=True)

    def start_node(self, node: Node) -> None:
        """Start a node, its libvirtd and its daemon."""
        node.up()
        self._give_join_token(node)
        self.start_daemon(node)

    def start_daemon(self, node: Node) -> None:
        """Start the node's daemon; it enrols if it has no certificate yet."""
        config = node.directory / "virtfleet" / "node.yaml"
        config.write_text(yaml.safe_dump(configuration.node_configuration(node, self.libvirt_uri)))
        command = node.command(program("virtfleet-node"), "--config", "/var/lib/virtfleet/node.yaml")
        self.daemon(node).start(command, kept=True)

    def wait_node_ready(self, name: str) -> None:
        """Wait until the VMNode is Ready."""
        wait_until(
            lambda: is_ready(self.kubectl.get("vmnode", name)),
            ENROL_SECONDS,
            f"{name} to be Ready",
            Program(f"{name}-daemon", self.directory),
        )

    def ca_pem(self) -> str | None:
        """Return the fleet's certificate authority once the operator has published it."""
        try:
            found = self.kubectl.get("configmap", "virtfleet-ca", OPERATOR_NAMESPACE)
        except KubectlError:
            return None  # the API server may be on its way back
        pem: str | None = (found or {}).get("data", {}).get("ca.crt")
        return pem

    def _give_join_token(self, node: Node) -> None:
        folder = node.directory / "virtfleet"
        ca = self.ca_pem()
        if (folder / "tls").exists() or ca is None:
            return
        token = secrets.token_hex(32)
        (folder / "ca.crt").write_text(ca)
        (folder / "join-token").touch(mode=0o600)
        (folder / "join-token").write_text(token)
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "virtfleet.io/join-token",
            "metadata": {"name": f"join-{node.name}", "namespace": OPERATOR_NAMESPACE},
            "stringData": {"token": token, "nodeName": node.name},
        }
        self.kubectl.apply(manifest, namespace=OPERATOR_NAMESPACE)

    def _link_programs(self) -> None:
        folder = self.directory / "bin"
        folder.mkdir(exist_ok=True)
        for name, target in {"kubectl": self.kubectl.binary, "kubectl-vm": program("kubectl-vm")}.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(target)


def is_ready(found: dict[str, Any] | None) -> bool:
    """Tell whether an object's condition Ready is True."""
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _crd_name(path: Path) -> str:
    """Return the object name of the CRD in virtfleet.io_<plural>.yaml."""
    group, plural = path.stem.split("_")
    return f"{plural}.{group}"


def leftovers(identifier: str) -> tuple[str, ...]:
    """Return what a cluster with this id still has on the machine: namespaces, links, cgroups."""
    links = subprocess.run(["ip", "-o", "link"], check=True, capture_output=True, text=True).stdout.splitlines()
    found = [line.split(":")[1].strip() for line in links if f" {identifier}" in line]
    places = (Path("/run/netns"), *Path("/sys/fs/cgroup").iterdir())
    found += [str(p) for place in places if place.is_dir() for p in place.iterdir() if p.name.startswith(identifier)]
    return tuple(found)
