"""TCP ports of a real guest through a real API server, past closed groups, while operators and daemons die."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fleet import Fleet, eventually
from victims import kill
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.kubectl import KubectlError
from virtfleet_dev.node import Node
from virtfleet_dev.paths import program
from virtfleet_node.core.forward import is_ours

SWITCH = "e2e-forward"
SUBNET = {"cidr": "10.72.0.0/24", "gateway": "10.72.0.1"}
NODES_OWN = "10.72.0.254"
BANNER = "SSH-2.0-tiny_1.0"


def vm(cluster: Cluster, *words: str, user: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [program("kubectl-vm"), "--kubeconfig", user or cluster.control_plane.kubeconfig, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr
    return done


@contextmanager
def forwarding(cluster: Cluster, *words: str) -> Iterator[int]:
    """Have `kubectl vm port-forward` run; the value is the local port."""
    kubeconfig = cluster.control_plane.kubeconfig
    command = [program("kubectl-vm"), "--kubeconfig", kubeconfig, "port-forward", *words, "--address", "127.0.0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        try:
            yield int(said.split(" -> ")[0].rpartition(":")[2])
        finally:
            process.terminate()
            assert process.wait(20) == 0


def greeting(port: int, seconds: float = 60) -> str:
    """Return what the guest says first; nothing when the connection breaks."""
    try:
        with socket.create_connection(("127.0.0.1", port), seconds) as connection:
            return connection.recv(100).decode().strip()
    except ConnectionError:
        return ""


def remains(node: Node) -> tuple[str, ...]:
    """Return what there is of the node's own ports: devices of Open vSwitch and namespaces."""
    ports = node.run("ovs-vsctl", "list-ports", "br-int").split()
    namespaces = [line.split()[0] for line in node.run("ip", "netns", "list").splitlines()]
    return tuple(name for name in (*ports, *namespaces) if is_ours(name))


@pytest.fixture(scope="module")
def net(fleet: Fleet) -> Iterator[Fleet]:
    """A machine whose group lets nobody in, and a neighbour of it."""
    fleet.apply("VirtualSwitch", SWITCH, {"subnet": SUBNET, "defaultPolicy": "Deny"})
    fleet.wait_ready(SWITCH, "vsw")
    fleet.apply("SecurityGroup", "e2e-closed", {"ingress": []})
    place = {"kubernetes.io/hostname": fleet.cluster.nodes[0].name}
    closed = {"name": "eth0", "switch": SWITCH, "ipAddress": "10.72.0.22", "securityGroups": ["e2e-closed"]}
    fleet.machine("fwd-closed", networks=[closed], nodeSelector=place)
    fleet.machine("fwd-other", networks=[{"name": "eth0", "switch": SWITCH}], nodeSelector=place)
    fleet.machine("fwd-none", networks=[{"name": "eth0", "user": {}}], nodeSelector=place)
    for name in ("fwd-closed", "fwd-other", "fwd-none"):
        fleet.wait_ready(name)
    eventually(lambda: "inet 10.72.0.22/24" in fleet.inside("fwd-closed", "ip addr")[1], "DHCP")
    fleet.inside("fwd-closed", f"nc -ll -p 22 -e printf '{BANNER}\\r\\n' </dev/null >/dev/null 2>&1 & sleep 0.2")
    fleet.inside("fwd-closed", "nc -ll -p 7 -e cat </dev/null >/dev/null 2>&1 & sleep 0.2")
    yield fleet
    fleet.delete("fwd-closed", "fwd-other", "fwd-none")
    fleet.delete("e2e-closed", kind="sg")
    fleet.delete(SWITCH, kind="vsw")


def test_a_closed_guest_is_reached_by_who_has_the_right_and_by_nobody_else(net: Fleet, scratch: Path) -> None:
    cluster = net.cluster
    with forwarding(cluster, "fwd-closed", ":22") as port:
        assert greeting(port) == BANNER
    with forwarding(cluster, "fwd-closed", ":7") as port, socket.create_connection(("127.0.0.1", port), 60) as echo:
        sent = bytes(range(256)) * 1000
        echo.sendall(sent)
        echo.shutdown(socket.SHUT_WR)
        received = b""
        while data := echo.recv(65536):
            received += data
        assert received == sent
    tried = net.inside("fwd-other", "nc -w 2 10.72.0.22 22 </dev/null >/dev/null 2>&1")
    assert tried[0] != 0, "the group lets nobody in"
    stranger = cluster.control_plane.write_kubeconfig(scratch / "forward-stranger", "stranger", None)
    done = vm(cluster, "port-forward", "fwd-closed", ":22", user=stranger)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("You may not do this: ")
    assert "virtualmachines/portforward" in done.stderr


def test_what_cannot_be_reached_says_why(net: Fleet) -> None:
    done = vm(net.cluster, "port-forward", "fwd-closed", "23", "--stdio")
    assert done.returncode == 1
    assert "The guest refuses connections to 10.72.0.22 port 23: nothing listens there." in done.stderr
    done = vm(net.cluster, "port-forward", "fwd-none", "22", "--stdio")
    assert done.returncode == 1
    assert "None of its cards can be reached: that takes a card on a VirtualSwitch with a subnet" in done.stderr


def test_ssh_reaches_the_guest(net: Fleet) -> None:
    """The test guest has no sshd: its greeting is what ssh itself reads."""
    kubeconfig = net.cluster.control_plane.kubeconfig
    proxy = f"{program('kubectl-vm')} --kubeconfig {kubeconfig} port-forward --stdio fwd-closed 22"
    done = subprocess.run(
        ["ssh", "-v", "-o", f"ProxyCommand={proxy}", "-o", "HostKeyAlias=vm/default/fwd-closed", "x@fwd-closed"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "remote software version tiny_1.0" in done.stderr
    done = vm(net.cluster, "ssh", "-l", "x", "fwd-closed", "--", "true")
    assert done.returncode == 255
    assert "refuses" not in done.stderr


def test_no_machine_is_given_the_nodes_address(net: Fleet) -> None:
    held = {found["spec"]["address"] for found in net.cluster.kubectl.list("vmaddresses")}
    assert "10.72.0.22" in held
    assert NODES_OWN not in held
    with pytest.raises(KubectlError, match="is the one from which nodes reach guests"):
        net.machine("fwd-thief", networks=[{"name": "eth0", "switch": SWITCH, "ipAddress": NODES_OWN}])


def test_a_killed_daemon_leaves_nothing_and_a_killed_operator_only_makes_wait(net: Fleet) -> None:
    cluster, node = net.cluster, net.cluster.nodes[0]
    with forwarding(cluster, "fwd-closed", ":7") as port:
        with socket.create_connection(("127.0.0.1", port), 60) as echo:
            echo.sendall(b"held")
            assert echo.recv(100) == b"held"
            assert len(remains(node)) == 2
            kill(cluster.daemon(node))
            with pytest.raises(ConnectionResetError):
                echo.recv(100)
        eventually(lambda: remains(node) == (), "the next daemon has swept")
        with forwarding(cluster, "fwd-closed", ":22") as other:
            assert eventually(lambda: greeting(other), "the next daemon connects") == BANNER
            kill(cluster.operator)
            assert greeting(other) == BANNER, "the connection waited for the next operator"
