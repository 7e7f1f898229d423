"""The network between the nodes of a cluster, and the host's one leg in it."""

import hashlib
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

HOST = 254
"""Last part of the host's own address on the fabric."""

UNDERLAY_MTU = 1600
"""Bytes, of the links below the overlay: 1500 of a guest, and what Geneve with OVN's option adds (58 over IPv4)."""

IMAGES_NAME = "images.virtfleet.test"
"""Name of the web server with guest images. `.test` is reserved by RFC 2606 and never resolves elsewhere."""


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def _ip_quietly(*words: str) -> None:
    """Run ip where there may be nothing to do."""
    subprocess.run(["ip", *words], check=False, capture_output=True)


@dataclass(frozen=True)
class Fabric:
    """A bridge in a namespace of its own, a /24 of addresses."""

    id: str
    """Short name of the cluster, prefix of all it makes."""
    subnet: str

    @classmethod
    def of(cls, directory: Path) -> "Fabric":
        """Return the fabric of the cluster in a directory; its subnet is chosen when first asked and then kept."""
        name = "vf" + hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:6]
        path = directory / "subnet"
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(_free_subnet(name))
        return cls(name, path.read_text())

    @property
    def _bridge_namespace(self) -> str:
        return f"{self.id}-fabric"

    def address(self, number: int) -> str:
        """Return the address of the node with this number, or of the host (HOST)."""
        return str(IPv4Network(self.subnet)[number])

    @property
    def host_address(self) -> str:
        """Return the host's own address."""
        return self.address(HOST)

    def up(self) -> None:
        """Make the bridge and the host's leg, unless they are there."""
        if Path(f"/run/netns/{self._bridge_namespace}").exists():
            return
        _ip("netns", "add", self._bridge_namespace)
        for words in ("link add br0 type bridge", "link set br0 up", "link set lo up"):
            _ip("-n", self._bridge_namespace, *words.split())
        _ip("link", "add", self.id, "type", "veth", "peer", "name", "host", "netns", self._bridge_namespace)
        _ip("-n", self._bridge_namespace, "link", "set", "host", "master", "br0", "up")
        _ip("addr", "add", f"{self.host_address}/24", "dev", self.id)
        _ip("link", "set", self.id, "up")

    def down(self) -> None:
        """Remove the bridge and the host's leg."""
        _ip_quietly("link", "del", self.id)
        _ip_quietly("netns", "del", self._bridge_namespace)

    def attach(self, namespace: str, number: int) -> None:
        """Make a namespace with an address on the fabric."""
        port = f"n{number}"
        _ip("netns", "add", namespace)
        _ip(
            "link",
            "add",
            "eth0",
            "netns",
            namespace,
            "type",
            "veth",
            "peer",
            "name",
            port,
            "netns",
            self._bridge_namespace,
        )
        _ip("-n", self._bridge_namespace, "link", "set", port, "master", "br0", "up")
        _ip("-n", namespace, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", namespace, "link", "set", device, "up")

    def underlay_address(self, number: int) -> str:
        """Return the address at which the node with this number ends its tunnels, in a /24 that only nodes are in."""
        _, _, third, _ = self.subnet.split(".")
        return f"10.98.{third}.{number}"

    @property
    def pod_network(self) -> str:
        """Return the network of the pods of the one node that runs some."""
        _, _, third, _ = self.subnet.split(".")
        return f"10.97.{third}.0/24"

    def route_pods(self, number: int) -> None:
        """Let the host reach the pods of the node with this number, until `down`."""
        _ip("route", "replace", self.pod_network, "via", self.address(number), "dev", self.id)

    def attach_network_engine(self, namespace: str, number: int) -> None:
        """Give a namespace its links below OVN: `u0` for the tunnels, `x0` to the physical network with its VLANs."""
        for kind in ("u", "x"):
            self._make_bridge(f"br{kind}")
            inner, port = f"{kind}0", f"{kind}{number}"
            ends = (inner, "netns", namespace, "type", "veth", "peer", "name", port, "netns", self._bridge_namespace)
            _ip("link", "add", *ends)
            _ip(
                "-n", self._bridge_namespace, "link", "set", port, "master", f"br{kind}", "mtu", str(UNDERLAY_MTU), "up"
            )
            _ip("-n", namespace, "link", "set", inner, "mtu", str(UNDERLAY_MTU), "up")
            compute_checksums(namespace, inner)

    def _make_bridge(self, name: str) -> None:
        namespace = ("-n", self._bridge_namespace)
        if not subprocess.run(["ip", *namespace, "link", "show", name], check=False, capture_output=True).returncode:
            return
        _ip(*namespace, "link", "add", name, "mtu", str(UNDERLAY_MTU), "type", "bridge")
        _ip(*namespace, "link", "set", name, "up")

    @property
    def underlay_network(self) -> tuple[str, str]:
        """Return the namespace and the name of the bridge that every node's `u0` is on."""
        return self._bridge_namespace, "bru"

    @property
    def physical_network(self) -> tuple[str, str]:
        """Return the namespace and the name of the bridge that every node's `x0` is on."""
        return self._bridge_namespace, "brx"

    def detach(self, namespace: str, number: int) -> None:
        """Remove a namespace and its link."""
        for kind in ("n", "u", "x"):
            _ip_quietly("-n", self._bridge_namespace, "link", "del", f"{kind}{number}")
        _ip_quietly("netns", "del", namespace)

    def hosts_file(self) -> str:
        """Return /etc/hosts for the nodes."""
        names = [f"{self.address(n)} {node_name(n)}" for n in range(1, 9)]
        return "\n".join(["127.0.0.1 localhost", f"{self.host_address} {IMAGES_NAME}", *names]) + "\n"


def compute_checksums(namespace: str, device: str) -> None:
    """Have a veth send packets with their checksums: Open vSwitch in user space gets no more than what is in them."""
    words = ("ip", "netns", "exec", namespace, "ethtool", "-K", device, "tx", "off")
    subprocess.run(words, check=True, capture_output=True)


def node_name(number: int) -> str:
    """Return the name of the node with this number, counted from 1: node-a is the first."""
    return f"node-{chr(ord('a') + number - 1)}"


def _free_subnet(name: str) -> str:
    routes = subprocess.run(["ip", "-o", "-4", "addr"], check=True, capture_output=True, text=True).stdout
    first = int(hashlib.sha256(name.encode()).hexdigest(), base=16)
    candidates = (f"10.99.{(first + step) % 250}." for step in range(250))
    return next(f"{prefix}0/24" for prefix in candidates if prefix not in routes)
