"""The cluster of pods itself: nothing is left of it, though its tool was killed, and the machine is as it was."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleet import eventually
from virtfleet_dev.cluster import leftovers
from virtfleet_dev.pod_cluster import PodCluster
from virtfleet_dev.pod_image import PAUSE_IMAGE

pytestmark = pytest.mark.local_rig

SYSCTLS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops")
UP = "import pathlib, sys; from virtfleet_dev.pod_cluster import PodCluster; PodCluster(pathlib.Path(sys.argv[1])).up()"


def sysctls() -> list[str]:
    return [Path("/proc/sys", name).read_text() for name in SYSCTLS]


def processes_of(directory: Path) -> list[str]:
    shown = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    return [line for line in shown.splitlines() if str(directory) in line]


def mounts_of(directory: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(directory) in line]


def left_by_pods() -> set[Path]:
    places = ("/run/containerd/*", "/run/netns/cni-*", "/var/log/pods/*", "/var/lib/cni/*", "/var/lib/kubelet/*")
    return {path for place in places for path in Path("/").glob(place.removeprefix("/"))}


def test_nothing_is_left_of_a_cluster_whose_tool_was_killed(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    before, places = sysctls(), left_by_pods()
    tool = subprocess.Popen([sys.executable, "-c", UP, directory])
    cluster = PodCluster(directory)
    try:
        eventually(lambda: cluster.pod_node.kubelet.inner_pid, "the kubelet is started")
        tool.send_signal(signal.SIGKILL)
        tool.wait()
        cluster.up()  # any process picks it up again
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "one"},
            "spec": {"containers": [{"name": "one", "image": PAUSE_IMAGE, "imagePullPolicy": "Never"}]},
        }
        eventually(lambda: cluster.kubectl.get("serviceaccount", "default"), "pods are admitted")
        cluster.kubectl.apply(pod)
        cluster.kubectl.run("wait", "--for=condition=Ready", "pod/one", "--timeout=60s")
        pods = [pid for pid in cluster_pids(cluster) if Path(f"/proc/{pid}/comm").read_text().strip() == "pause"]
        assert pods
        assert sysctls() == before
        assert leftovers(cluster.fabric.id)
    finally:
        tool.kill()
        identifier = cluster.fabric.id
        cluster.remove()
    assert not [pid for pid in pods if Path(f"/proc/{pid}").exists()]
    assert leftovers(identifier) == ()
    assert processes_of(directory) == []
    assert mounts_of(directory) == []
    assert left_by_pods() <= places
    assert sysctls() == before
    assert not directory.exists()


def cluster_pids(cluster: PodCluster) -> list[int]:
    """Return the processes in the cgroups of the cluster's node."""
    top = Path("/sys/fs/cgroup/pids", cluster.pod_node.node.namespace)
    return [int(word) for file in top.rglob("cgroup.procs") for word in file.read_text().split()]
