"""A hypervisor node that runs pods: containerd, a kubelet and kube-proxy beside its libvirtd and Open vSwitch.

They are in all of the node's namespaces, as on a host of its own: /run/libvirt and /var/lib/virtfleet are the same for
libvirtd and for a pod that mounts them, a pod of the host's network is in the network of the guests, and everything
ends with the node.
"""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from virtfleet_dev.kubernetes import minor_version, pod_binaries
from virtfleet_dev.node import READY_SECONDS, Node
from virtfleet_dev.paths import cache_dir
from virtfleet_dev.pod_control_plane import PodControlPlane
from virtfleet_dev.pod_image import PAUSE_IMAGE, write_pause_image
from virtfleet_dev.process import Program, wait_until

_CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
_REMOTE_ONLY = 27  # from Kubernetes 1.27 on, a kubelet has no flag that says so

_CONTAINERD_CONF = """\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  netns_mounts_under_state_dir = true
  # Root may lack CAP_SYS_RESOURCE, as in a container or a small virtual machine: no pod would start.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{cni}"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
"""


def install_packages() -> None:
    """Install by apt what is missing of pods/packages.txt; the machine's own containerd does not start."""
    folder = Path(__file__).with_name("pods")
    cache_dir().mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        "flock",
        cache_dir() / "packages.lock",
        "bash",
        folder / "install.sh",
        folder / "packages.txt",
    ]
    subprocess.run(command, check=True)


@dataclass(frozen=True)
class PodNode:
    """What a node needs to run pods."""

    node: Node
    """Made with `pods=True`."""
    control_plane: PodControlPlane

    @property
    def containerd(self) -> Program:
        """Return containerd."""
        return self._program("containerd")

    @property
    def kubelet(self) -> Program:
        """Return the kubelet."""
        return self._program("kubelet")

    @property
    def proxy(self) -> Program:
        """Return kube-proxy."""
        return self._program("kube-proxy")

    @property
    def _files(self) -> Path:
        return self.node.directory / "kubernetes"

    def up(self) -> None:
        """Start what does not run of it on a node that is up."""
        self._files.mkdir(exist_ok=True)
        self._start_containerd()
        self._start_kubelet()
        self._start_proxy()

    def down(self) -> None:
        """Stop it; containers run on until the node is down."""
        for program in (self.proxy, self.kubelet, self.containerd):
            program.stop()

    def load(self, archive: Path) -> None:
        """Import the images of an archive that `docker save` or `buildah push` wrote."""
        self.containers("image", "import", "--digests=false", archive.resolve())

    def containers(self, *words: str | Path) -> str:
        """Run `ctr` in the namespace of pods and return what it printed."""
        return self.node.run("ctr", "--namespace=k8s.io", *words)

    def _start_containerd(self) -> None:
        config, pause = self._files / "containerd.toml", self._files / "pause.tar"
        network = self._files / "cni"
        network.mkdir(exist_ok=True)
        (network / "10-pods.conflist").write_text(json.dumps(self._pod_network()))
        config.write_text(_CONTAINERD_CONF.format(pause=PAUSE_IMAGE, cni=network))
        self.containerd.start(self.node.command("containerd", "--config", config), kept=True)
        wait_until(self.containerd_answers, READY_SECONDS, "containerd", self.containerd)
        write_pause_image(pod_binaries()["pause"], pause)
        self.load(pause)

    def containerd_answers(self) -> bool:
        """Tell whether containerd answers on its socket."""
        command = [str(word) for word in self.node.command("ctr", "--timeout=2s", "version")]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def _start_kubelet(self) -> None:
        name, program = self.node.name, pod_binaries()["kubelet"]
        kubeconfig, config = self._files / "kubelet.kubeconfig", self._files / "kubelet.yaml"
        self.control_plane.write_kubeconfig(kubeconfig, f"system:node:{name}", "system:nodes")
        (self._files / "resolv.conf").touch()
        config.write_text(yaml.safe_dump(self._kubelet_configuration()))
        flags: Sequence[str] = (
            f"--config={config}",
            f"--kubeconfig={kubeconfig}",
            f"--container-runtime-endpoint=unix://{_CONTAINERD_SOCKET}",
            f"--node-ip={self.node.address}",
            f"--hostname-override={name}",
            "--volume-plugin-dir=/var/lib/kubelet/volume-plugins",
            *(["--container-runtime=remote"] if minor_version(program) < _REMOTE_ONLY else []),
        )
        self.kubelet.start(self.node.command(program, *flags), kept=True)

    def _start_proxy(self) -> None:
        kubeconfig = self._files / "kube-proxy.kubeconfig"
        self.control_plane.write_kubeconfig(kubeconfig, "system:kube-proxy", None)
        flags = (
            f"--kubeconfig={kubeconfig}",
            f"--hostname-override={self.node.name}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={self.node.fabric.pod_network}",
            # These are the machine's, not the node's.
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        )
        self.proxy.start(self.node.command(pod_binaries()["kube-proxy"], *flags), kept=True)

    def _kubelet_configuration(self) -> dict[str, Any]:
        files = self.control_plane.kubelet_files(self.node.name, self.node.address)
        return {
            "kind": "KubeletConfiguration",
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(files["ca"])},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": str(files["certificate"]),
            "tlsPrivateKeyFile": str(files["key"]),
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "resolvConf": str(self._files / "resolv.conf"),
            "nodeStatusUpdateFrequency": "2s",
            # When it misses a container's end, it sees it now: a minute is its default.
            "syncFrequency": "2s",
            # A machine whose disk is nearly full still runs its tests.
            "evictionHard": {"memory.available": "100Mi"},
            "imageGCHighThresholdPercent": 100,
        }

    def _pod_network(self) -> dict[str, Any]:
        """Return CNI's configuration. Each pod has a link of its own, so that traffic between two is routed."""
        network = {
            "type": "ptp",
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": self.node.fabric.pod_network}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
        ports = {"type": "portmap", "capabilities": {"portMappings": True}}
        return {"cniVersion": "0.4.0", "name": "pods", "plugins": [network, ports]}

    def _program(self, name: str) -> Program:
        return Program(f"{self.node.name}-{name}", self.control_plane.directory)
