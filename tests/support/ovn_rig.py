"""OVN without Kubernetes: the central part and nodes under mutual TLS, and ports to send packets from.

    rig = OvnRig(directory)
    rig.up()
    rig.nbctl("ls-add", "net", "--", "lsp-add", "net", "one", "--", "lsp-set-addresses", "one", f"{MAC} 10.0.0.1")
    one = rig.probe(rig.nodes[0], "one", MAC, "10.0.0.1/24")
    rig.wait_up("one")
    assert one.pings("10.0.0.2")
    rig.down()

`rig.outsider(...)` is a host of the physical network, `rig.nodes[n].hold("ovn-controller")` keeps a program down.
A probe is a network namespace whose `eth0` is plugged into the node's br-int as the logical port.
"""

import itertools
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from network_namespace import Capture, socket_in
from virtfleet_dev.fabric import Fabric, compute_checksums, node_name
from virtfleet_dev.node import Node
from virtfleet_dev.ovn import LocalTrust, OvnCentral

MTU = 1442
"""What is left to a guest of 1500 bytes on the wire."""

_NUMBERS = itertools.count(1)
_STEP_SECONDS = 0.02


def eventually(condition: Callable[[], object], seconds: float, what: str) -> float:
    """Wait until the condition holds; fail when it does not in time. Return how long it took, in seconds."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"{what} took more than {seconds} s"
        time.sleep(_STEP_SECONDS)
    return time.monotonic() - start


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], check=False, capture_output=True, text=True)
    assert not done.returncode, f"ip {' '.join(words)}: {done.stderr}"


@dataclass(frozen=True)
class Probe:
    """A network namespace whose `eth0` is a port of a node's bridge: a host that sends and receives packets."""

    node: Node
    bridge: str
    namespace: str
    device: str
    """Its interface on the bridge."""
    mac: str

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run a program in the namespace."""
        command = ["ip", "netns", "exec", self.namespace, *words]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def add_address(self, address: str) -> None:
        """Give eth0 an address such as 10.0.0.1/24 or fd00::1/64."""
        extra = ("nodad",) if ":" in address else ()
        done = self.run("ip", "addr", "add", address, "dev", "eth0", *extra)
        assert not done.returncode, done.stderr

    def pings(self, target: str, seconds: int = 1) -> bool:
        """Tell whether one echo request is answered within whole seconds."""
        return not self.run("busybox", "ping", "-c", "1", "-W", str(seconds), target).returncode

    def connects(self, target: str, port: int, seconds: float = 1.0) -> bool:
        """Tell whether a TCP connection can be made."""
        with suppress(OSError), self.connect(target, port, seconds):
            return True
        return False

    def connect(self, target: str, port: int, seconds: float = 1.0) -> socket.socket:
        """Return a TCP connection; `seconds` bounds the connecting and each later call. OSError."""
        made = socket_in(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(seconds)
        try:
            made.connect((target, port))
        except OSError:
            made.close()
            raise
        return made

    def listen(self, port: int) -> "EchoServer":
        """Return a TCP server on this port that sends back what it gets; use it in `with`."""
        return EchoServer(self.namespace, port)

    def udp(self, port: int = 0) -> socket.socket:
        """Return a UDP socket that is bound to a port."""
        made = socket_in(self.namespace, socket.AF_INET, socket.SOCK_DGRAM)
        made.bind(("0.0.0.0", port))  # noqa: S104 -- in a namespace of its own
        return made

    def send_frames(self, *frames: bytes) -> None:
        """Send frames as they are."""
        with socket_in(self.namespace, socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            for frame in frames:
                raw.send(frame)

    def capture(self) -> Capture:
        """Return what arrives at eth0 from now on; use it in `with`."""
        return Capture(self.namespace, "eth0")

    def unplug(self) -> None:
        """Take the port from the bridge and remove the namespace, unless that was done before."""
        if not Path("/run/netns", self.namespace).exists():
            return
        with suppress(subprocess.CalledProcessError, ProcessLookupError):  # the node may be down
            self.node.run("ovs-vsctl", "--timeout=30", "--if-exists", "del-port", self.bridge, self.device)
        _ip("netns", "del", self.namespace)


class EchoServer:
    """A TCP server in a namespace; `connections` counts those it has accepted."""

    def __init__(self, namespace: str, port: int) -> None:
        self._socket = socket_in(namespace, socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("0.0.0.0", port))  # noqa: S104 -- in a namespace of its own
        self._socket.listen(16)
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections += 1
                threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with suppress(OSError), connection:
        while content := connection.recv(4096):
            connection.sendall(content)


class OvnRig:
    """The central part and nodes in a directory."""

    def __init__(self, directory: Path, nodes: int = 2, *, libvirt: bool = False) -> None:
        self.directory = directory
        self.fabric = Fabric.of(directory)
        self.trust = LocalTrust(directory / "trust", self.fabric.host_address)
        self.central = OvnCentral(
            directory,
            self.fabric.host_address,
            self.trust.server_files(self.trust.northbound),
            self.trust.server_files(self.trust.southbound),
        )
        self.nodes = tuple(self._node(number, libvirt=libvirt) for number in range(1, nodes + 1))
        self._probes: list[Probe] = []

    def _node(self, number: int, *, libvirt: bool) -> Node:
        name = node_name(number)
        folder = self.directory / "nodes" / name
        return Node(name, number, self.fabric, folder, libvirt=libvirt, network_engine=True)

    def up(self) -> None:
        """Start everything, and wait until every node has registered as a chassis."""
        self.fabric.up()
        self.central.up()
        for node in self.nodes:
            node.up()
            self.connect(node)
        names = {node.name for node in self.nodes}
        eventually(lambda: self.central.chassis == names, 20, "registering the chassis")

    def connect(self, node: Node) -> None:
        """Have the node's ovn-controller use its own certificate at the southbound database."""
        pair, authority = self.trust.chassis(node.name), self.trust.southbound
        node.connect_ovn(self.central.southbound.remote, pair.key, pair.certificate, authority.pair.certificate)

    def down(self) -> None:
        """Stop everything, whatever of it fails to; nothing is left outside of the directory."""
        with ExitStack() as last_first:
            last_first.callback(self.fabric.down)
            last_first.callback(self.central.down)
            for node in self.nodes:
                last_first.callback(node.down)
            last_first.callback(self.remove_probes)

    def nbctl(self, *words: str) -> str:
        """Run ovn-nbctl and return what it printed."""
        return self.central.northbound.run(*words)

    def sbctl(self, *words: str) -> str:
        """Run ovn-sbctl and return what it printed."""
        return self.central.southbound.run(*words)

    def wait_synced(self) -> None:
        """Wait until every node has in its flow tables what the northbound database says. All nodes must be up."""
        self.nbctl("--wait=hv", "sync")

    def wait_up(self, *lports: str, seconds: float = 10) -> None:
        """Wait until logical ports are up."""

        def all_up() -> bool:
            return all(self.nbctl("lsp-get-up", lport) == "up" for lport in lports)

        eventually(all_up, seconds, f"ports {', '.join(lports)} to be up")

    def outsider(self, node: Node, bridge: str, vlan: int | None, mac: str, *addresses: str) -> Probe:
        """Make a host of the physical network: an access port of a VLAN on a node's bridge for an uplink.

        This kernel has no VLAN devices; Open vSwitch tags for the host. None is for frames without a tag. To come from
        outside of a node, use another node's bridge: its `x0` is on the same wire.
        """
        return self._plug(node, bridge, ("tag=" + str(vlan),) if vlan else (), (), mac, addresses)

    def probe(self, node: Node, lport: str, mac: str, *addresses: str) -> Probe:
        """Plug a namespace into a node's br-int as a logical port, with these addresses on its eth0."""
        iface = (f"external_ids:iface-id={lport}", f'external_ids:attached-mac="{mac}"')
        return self._plug(node, "br-int", (), iface, mac, addresses)

    def _plug(
        self, node: Node, bridge: str, port: tuple[str, ...], iface: tuple[str, ...], mac: str, addresses: Iterable[str]
    ) -> Probe:
        number = next(_NUMBERS)
        probe = Probe(node, bridge, f"{self.fabric.id}-probe{number}", f"probe{number}", mac)
        self._probes.append(probe)
        _make_link(probe)
        setting = ("--", "set", "interface", probe.device, *iface) if iface else ()
        node.run("ovs-vsctl", "--timeout=30", "add-port", bridge, probe.device, *port, *setting)
        for address in addresses:
            probe.add_address(address)
        return probe

    def remove_probes(self) -> None:
        """Unplug every probe; logical switches and ports stay."""
        while self._probes:
            self._probes.pop().unplug()


def _make_link(probe: Probe) -> None:
    _ip("netns", "add", probe.namespace)
    link = (
        f"link add eth0 address {probe.mac} mtu {MTU} type veth peer name {probe.device} netns {probe.node.namespace}"
    )
    for words in (link, "link set lo up", "link set eth0 up"):
        _ip("-n", probe.namespace, *words.split())
    _ip("-n", probe.node.namespace, "link", "set", probe.device, "mtu", str(MTU), "up")
    compute_checksums(probe.namespace, "eth0")
