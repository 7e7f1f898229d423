"""virtfleet as the chart installs it, on the cluster of this machine or on one that is named.

`VIRTFLEET_E2E_KUBECONFIG` names another one, whose nodes have the label that the chart asks for. `VIRTFLEET_E2E_VALUES`
is a file with the chart's values for it, by default what the release `virtfleet` has there, and `VIRTFLEET_E2E_IMAGE`
the URL of a disk image whose guest writes READY on its console, such as guest.qcow2 of `virtfleet_dev.guest_image`.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from fleet import Fleet, eventually
from virtfleet_dev.cluster import Cluster
from virtfleet_dev.helm import Helm, chart
from virtfleet_dev.kube_tools import KubeTools, kube_tools
from virtfleet_dev.kubectl import Kubectl
from virtfleet_dev.paths import checkout, program
from virtfleet_dev.pod_cluster import PodCluster

NAMESPACE = "virtfleet-system"
MACHINE = "quickstart"
OPERATOR, DAEMON = "deployment/virtfleet-operator", "daemonset/virtfleet-node"
OTHER_CLUSTER = os.environ.get("VIRTFLEET_E2E_KUBECONFIG", "")
IMAGE = os.environ.get("VIRTFLEET_E2E_IMAGE", "http://images.virtfleet.test/guest.qcow2")
CHART = chart()
HELM_SECONDS = 120


@dataclass(frozen=True)
class Life:
    """What changes when a guest is started anew."""

    started_at: str
    boot: str = ""
    """The guest's boot id, where its agent can be asked."""
    pid: int = 0
    """QEMU's, on this machine's cluster."""


@dataclass(frozen=True)
class Charted:
    """A cluster, the chart's values for it, and what a user has."""

    kubectl: Kubectl
    values: Path
    pods: PodCluster | None = None
    """The cluster of this machine, None for another one."""
    tools: KubeTools = field(default_factory=kube_tools)

    @property
    def fleet(self) -> Fleet:
        """Return what tests do with machines; on another cluster, only what kubectl can do."""
        return Fleet(self.pods or cast("Cluster", self))

    @property
    def local(self) -> PodCluster:
        """Return the cluster of this machine."""
        assert self.pods is not None, "this test needs the mark local_rig"
        return self.pods

    def helm(self, *words: str | Path) -> str:
        """Run helm for the release and return what it printed."""
        done = Helm(self.tools.helm, self.kubectl.kubeconfig).attempt(*words, "--namespace", NAMESPACE)
        assert done.returncode == 0, f"helm {words[0]}: {done.stderr}\n{self.describe()}"
        return done.stdout

    def install(self, chart: Path = CHART) -> None:
        """Install the chart, or bring it to what it shall be, and wait until its pods are ready."""
        self.helm(
            "upgrade", "--install", "virtfleet", chart, "--create-namespace", *self._waiting, "--values", self.values
        )

    def upgrade(self, chart: Path, mark: str) -> None:
        """Upgrade to a chart whose pods are all made anew."""
        annotations = (f"{part}.podAnnotations.virtfleet\\.test/mark={mark}" for part in ("operator", "node"))
        settings = [word for text in annotations for word in ("--set-string", text)]
        self.helm("upgrade", "virtfleet", chart, *self._waiting, "--values", self.values, *settings)

    def rollback(self) -> None:
        """Go back to the revision before."""
        self.helm("rollback", "virtfleet", *self._waiting)

    def uninstall(self) -> None:
        """Remove the chart, and wait until its pods are gone."""
        self.helm("uninstall", "virtfleet", *self._waiting)
        eventually(lambda: not self.pod_names(), "the pods are gone")

    @property
    def _waiting(self) -> tuple[str, ...]:
        return ("--wait", "--timeout", f"{HELM_SECONDS}s")

    def pod_names(self, part: str = "") -> frozenset[str]:
        """Return the names of virtfleet's pods, or of those whose names start with `virtfleet-<part>`."""
        words = ("-n", NAMESPACE, "get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
        names = self.kubectl.run(*words).split()
        return frozenset(name for name in names if name.startswith(f"virtfleet-{part}"))

    def rolled_out(self, workload: str) -> None:
        """Wait until all pods of a workload are ready."""
        self.kubectl.run("-n", NAMESPACE, "rollout", "status", workload, f"--timeout={HELM_SECONDS}s")

    def kubelet_knows_pods(self) -> None:
        """Wait until a kubelet that has started knows its pods: until then the API server shows what was before."""
        for pod in self.pod_names():
            words = ("-n", NAMESPACE, "logs", pod, "--tail=1")
            eventually(lambda words=words: self.kubectl.attempt(*words).returncode == 0, f"the kubelet knows {pod}")

    def nodes_ready(self) -> None:
        """Wait until a daemon has enrolled and every node is Ready."""
        eventually(lambda: self.kubectl.list("vmnodes"), "a node has enrolled")
        self.kubectl.run("wait", "vmnodes", "--all", "--for=condition=Ready", f"--timeout={HELM_SECONDS}s")

    def apply_machine(self) -> None:
        """Apply examples/quickstart.yaml, with the image that the cluster's nodes can reach."""
        text = (checkout() / "examples" / "quickstart.yaml").read_text()
        changed = re.sub(r'url: "[^"]*"', f'url: "{IMAGE}"', text)
        self.kubectl.run("apply", "-f", "-", stdin=changed)

    def console(self) -> str:
        """Return what the machine's guest has printed, as `kubectl vm console` gives it."""
        words = [program("kubectl-vm"), "--kubeconfig", self.kubectl.kubeconfig, "console", MACHINE, "--history"]
        return subprocess.run(words, capture_output=True, check=False, timeout=60).stdout.decode(errors="replace")

    def life(self) -> Life:
        """Wait until the machine is Ready, and return what tells this guest from one that was started later."""
        self.nodes_ready()
        found = self.fleet.wait_ready(MACHINE)
        started = str(found["status"]["machine"]["startedAt"])
        if self.pods is None:
            return Life(started)
        _, boot = self.fleet.inside(MACHINE, "cat /proc/sys/kernel/random/boot_id")
        return Life(started, boot.strip(), self.qemu_pid(found["metadata"]["uid"]))

    def qemu_pid(self, uid: str) -> int:
        """Return the pid of the only QEMU that runs a machine."""
        (node,) = self.local.nodes
        (pid,) = (p for p in node.pids("qemu-system-x86") if uid in Path(f"/proc/{p}/cmdline").read_text())
        return pid

    def uptime(self) -> float:
        """Return the seconds that the guest says it is up."""
        return float(self.fleet.inside(MACHINE, "cat /proc/uptime")[1].split()[0])

    def lease(self) -> dict[str, Any]:
        """Return who leads, and in which epoch."""
        found = self.kubectl.get("lease", "virtfleet-operator", NAMESPACE) or {}
        return dict(found.get("spec", {}))

    def leader_pod(self) -> str:
        """Return the name of the pod that leads: an operator's identity is its host's name and its pid."""
        return str(self.lease()["holderIdentity"]).rpartition("-")[0]

    def process_of(self, pod: str) -> int:
        """Return the pid of a pod's program, as this machine sees it."""
        found = self.kubectl.get("pod", pod, NAMESPACE) or {}
        group = f"pod{found['metadata']['uid']}"
        (pid,) = (p for p in _pids() if group in _read(p, "cgroup") and _read(p, "comm").startswith("virtfleet-"))
        return pid

    def restarts(self) -> list[str]:
        """Return the last words of each program that ended by itself."""
        pods = json.loads(self.kubectl.run("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]
        ended = [pod["metadata"]["name"] for pod in pods if any(_restarted(pod))]
        words = ("-n", NAMESPACE, "logs", "--previous", "--tail=20")
        return [f"{name}: {self.kubectl.attempt(*words, name).stdout}" for name in ended]

    def describe(self) -> str:
        """Return what there is to know of pods that do not come up."""
        said = [self.kubectl.attempt("-n", NAMESPACE, "get", "pods,endpoints,events").stdout]
        for workload in (OPERATOR, DAEMON):
            words = ("-n", NAMESPACE, "logs", workload, "--all-containers", "--tail=20")
            said.append(self.kubectl.attempt(*words).stdout)
        return "\n".join(said)

    def token(self, *options: str) -> str:
        """Return a token of the daemons' ServiceAccount by TokenRequest."""
        user = Kubectl(self.tools.kubectl, self.kubectl.kubeconfig)
        return user.run("-n", NAMESPACE, "create", "token", "virtfleet-node", *options).strip()

    @contextmanager
    def bearer(self, token: str, folder: Path) -> Iterator[Kubectl]:
        """Give kubectl with a token and nothing else."""
        config = yaml.safe_load(self.kubectl.kubeconfig.read_text())
        config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
        path = folder / "bearer.kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        try:
            yield Kubectl(self.tools.kubectl, path)
        finally:
            path.unlink()


def other_cluster(kubeconfig: Path, folder: Path) -> Charted:
    """Return the cluster that is named, with the values that are named, or that its release has."""
    named = os.environ.get("VIRTFLEET_E2E_VALUES")
    found = Charted(Kubectl(kube_tools().kubectl, kubeconfig), Path(named or folder / "values.yaml"))
    if not named:
        found.values.write_text(found.helm("get", "values", "virtfleet", "--output", "yaml"))
    return found


def _restarted(pod: dict[str, Any]) -> Iterator[bool]:
    return (bool(status["restartCount"]) for status in pod["status"].get("containerStatuses", ()))


def _pids() -> Iterator[int]:
    return (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""  # it ended while we looked
