"""A hypervisor node in namespaces: its own network, processes, mounts, host name and cgroups, and a real libvirtd.

Its Open vSwitch and ovn-controller, where it has them, are real, too; they switch in user space (`netdev`).

Everything a node owns is named after the cluster's id, so that several clusters run side by side and `down` finds what
a killed tool left behind.
"""

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from virtfleet_dev.control_plane import SERVICE_NETWORK
from virtfleet_dev.fabric import Fabric
from virtfleet_dev.process import STOP_SECONDS, Program, wait_until

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "blkio", "freezer", "devices", "pids")
_CGROUPS = Path("/sys/fs/cgroup")
READY_SECONDS = 60.0  # the first start of libvirtd probes QEMU for 4 s, more on a busy machine

_LIBVIRTD_CONF = """\
listen_tls = 0
listen_tcp = 1
listen_addr = "{address}"
auth_tcp = "none"
auth_unix_rw = "none"
auth_unix_ro = "none"
unix_sock_group = "root"
unix_sock_rw_perms = "0700"
host_uuid = "{host_uuid}"
max_clients = 200
min_workers = 5
max_workers = 20
log_filters = "3:*"
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

_QEMU_CONF = """\
security_driver = "none"
user = "root"
group = "root"
dynamic_ownership = 0
remember_owner = 0
namespaces = []
cgroup_controllers = [ "cpu", "cpuacct", "cpuset", "memory", "blkio" ]
stdio_handler = "logd"
migration_address = "{address}"
migration_host = "{address}"
"""

_FOLDERS = ("etc", "run", "lib", "log", "cache", "virtfleet", "hold", "etc/qemu")
_POD_FOLDERS = ("kubelet", "containerd", "containerd-run", "cni", "pod-logs", "container-logs", "sysctl")
_ENGINE_FOLDERS = ("ovs-etc", "ovs-run", "ovs-log", "ovn-run", "ovn-log")

_VIRTLOGD_CONF = """\
max_size = 1048576
max_backups = 1
"""


@dataclass(frozen=True)
class Node:
    """One node of a cluster."""

    name: str
    number: int
    """1 for the first node; the last part of its address."""
    fabric: Fabric
    directory: Path
    """<cluster directory>/nodes/<name>"""
    libvirt: bool = True
    """Whether it runs libvirtd and virtlogd."""
    network_engine: bool = False
    """Whether it runs Open vSwitch and ovn-controller."""
    pods: bool = False
    """Whether it has what containerd and a kubelet need; `PodNode` starts them."""

    @property
    def address(self) -> str:
        """Return its address on the fabric."""
        return self.fabric.address(self.number)

    @property
    def namespace(self) -> str:
        """Return the name of its network namespace."""
        return f"{self.fabric.id}-{self.name}"

    @property
    def socket(self) -> Path:
        """Return libvirtd's socket, seen from outside."""
        return self.directory / "libvirt-sock"

    @property
    def uri(self) -> str:
        """Return the libvirt URI to use from outside."""
        return f"qemu+unix:///system?socket={self.socket}"

    @property
    def _mounted(self) -> Path:
        """Return the file that is there once the node has all its mounts."""
        return self.directory / "mounted"

    @property
    def init(self) -> Program:
        """Return the process that holds the node's namespaces."""
        return Program(f"{self.name}-init", self.directory.parent.parent)

    def up(self) -> None:
        """Start the node and wait until its libvirtd and its Open vSwitch answer."""
        if self.init.pid is None:
            self.clean()
            self._write_files()
            self.fabric.attach(self.namespace, self.number)
            if self.network_engine:
                self.fabric.attach_network_engine(self.namespace, self.number)
            self._make_cgroups()
            self.init.start(["bash", Path(__file__).with_name("node_enter.sh"), *self._init_arguments()])
        wait_until(self._mounted.exists, READY_SECONDS, f"the mounts of {self.name}", self.init)
        if self.network_engine:
            wait_until(self.underlay_is_up, READY_SECONDS, f"Open vSwitch of {self.name}", self.init)
        if self.libvirt:
            wait_until(self.libvirtd_answers, READY_SECONDS, f"libvirtd of {self.name}", self.init)

    def crash(self) -> None:
        """Kill every process of the node at once, as a power failure would."""
        if (pid := self._inner_pid()) is not None:
            os.kill(pid, signal.SIGKILL)
        self.init.kill()

    def down(self) -> None:
        """Stop the node and remove what it had outside its directory."""
        self.crash()
        self.clean()

    def clean(self) -> None:
        """Remove the node's namespace, link and cgroups."""
        self.fabric.detach(self.namespace, self.number)
        for controller in CONTROLLERS:
            _remove_cgroups(_CGROUPS / controller / self.namespace)

    def libvirtd_answers(self) -> bool:
        """Tell whether libvirtd answers on its socket."""
        done = subprocess.run(["virsh", "-c", self.uri, "version"], capture_output=True, check=False, timeout=30)
        return done.returncode == 0

    def underlay_is_up(self) -> bool:
        """Tell whether Open vSwitch runs the bridge of the tunnels and the bridge has its address."""
        found = subprocess.run(
            ["ip", "-n", self.namespace, "-o", "-4", "addr", "show", "br-phy"],
            capture_output=True,
            check=False,
            text=True,
        )
        return f" {self.fabric.underlay_address(self.number)}/" in found.stdout

    def connect_ovn(self, remote: str, key: Path, certificate: Path, ca: Path) -> None:
        """Have ovn-controller use a southbound database (`ssl:<ip>:<port>`) with these files, as the node sees them."""
        self.run(
            "ovs-vsctl",
            "--timeout=30",
            *("set-ssl", key, certificate, ca, "--", "set", "open", "."),
            f"external_ids:ovn-remote={remote}",
        )

    def command(self, *words: str | Path) -> list[str | Path]:
        """Return the command line that runs a program inside the node."""
        pid = self._inner_pid()
        if pid is None:
            raise ProcessLookupError(f"{self.name} is not up")
        flags = ("--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup")
        enter: list[str | Path] = [
            "bash",
            Path(__file__).with_name("in_cgroups.sh"),
            self.namespace,
            " ".join(CONTROLLERS),
        ]
        return [*enter, "nsenter", f"--target={pid}", *flags, *words]

    @property
    def root(self) -> Path:
        """Return the node's root, with what is mounted there, as seen from outside."""
        return Path(f"/proc/{self._inner_pid()}/root")

    def run(self, *words: str | Path) -> str:
        """Run a program inside the node and return what it printed."""
        return subprocess.run(self.command(*words), check=True, capture_output=True, text=True).stdout

    def pids(self, program: str) -> tuple[int, ...]:
        """Return the pids, as seen from outside, of the node's processes with this name (as in /proc/<pid>/comm)."""
        inner = self._inner_pid()
        if inner is None:
            return ()
        space = _pid_namespace(inner)
        return tuple(pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _is(pid, program, space))  # noqa: PTH208 -- /proc vanishes while it is read

    def hold(self, program: str) -> None:
        """Keep a program of node_init.sh, such as libvirtd or ovn-controller, down when it next ends."""
        (self.directory / "hold" / program).touch()

    def release(self, program: str) -> None:
        """Let a program that is held be started again."""
        (self.directory / "hold" / program).unlink(missing_ok=True)

    def _inner_pid(self) -> int | None:
        """Return the pid, seen from outside, of the node's pid 1."""
        outer = self.init.pid
        if outer is None:
            return None
        children = Path(f"/proc/{outer}/task/{outer}/children")
        words = children.read_text().split() if children.exists() else []
        return int(words[0]) if words else None

    def _init_arguments(self) -> Sequence[str | Path]:
        hosts = self.directory / "hosts"
        underlay = self.fabric.underlay_address(self.number) if self.network_engine else ""
        parts = (("libvirt", self.libvirt), ("ovn", self.network_engine), ("pods", self.pods))
        services = " ".join(name for name, on in parts if on)
        return [self.namespace, " ".join(CONTROLLERS), self.name, self.directory, hosts, services, underlay]

    def _write_files(self) -> None:
        engine, pods = (_ENGINE_FOLDERS if self.network_engine else ()), (_POD_FOLDERS if self.pods else ())
        for folder in (*_FOLDERS, *engine, *pods):
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
        host_uuid = uuid.uuid5(uuid.NAMESPACE_OID, self.namespace)
        files = {
            "etc/libvirtd.conf": _LIBVIRTD_CONF.format(address=self.address, host_uuid=host_uuid),
            "etc/qemu.conf": _QEMU_CONF.format(address=self.address),
            "etc/virtlogd.conf": _VIRTLOGD_CONF,
            "hosts": self.fabric.hosts_file(),
            "service-network": SERVICE_NETWORK,
        }
        for name, text in files.items():
            (self.directory / name).write_text(text)
        self._mounted.unlink(missing_ok=True)
        self.socket.unlink(missing_ok=True)
        self.socket.symlink_to("run/libvirt-sock")

    def _make_cgroups(self) -> None:
        for controller in CONTROLLERS:
            group = _CGROUPS / controller / self.namespace
            group.mkdir(exist_ok=True)
            if controller == "cpuset":
                for name in ("cpuset.cpus", "cpuset.mems"):
                    (group / name).write_text((group.parent / name).read_text())
                (group / "cgroup.clone_children").write_text("1")


def _pid_namespace(pid: int) -> str:
    return str(Path(f"/proc/{pid}/ns/pid").readlink())


def _is(pid: int, program: str, space: str) -> bool:
    try:
        return _pid_namespace(pid) == space and Path(f"/proc/{pid}/comm").read_text().strip() == program
    except OSError:
        return False  # it ended while we looked


def _remove_cgroups(top: Path) -> None:
    """Remove a cgroup with those in it, once the last process has left, which takes a moment after its death."""
    end = time.monotonic() + STOP_SECONDS
    for folder, _, _ in sorted(os.walk(top), reverse=True):
        while True:
            try:
                Path(folder).rmdir()
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.05)
