"""Claims as disks on a real kubelet: it mounts them for a pod that holds them, and the guest does not depend on that.

The machine is that of examples/pvc-disk.yaml, and has a second claim, of a block volume. The storage is the node's own:
a folder, and a block device that is a file (`losetup`). QEMU is not root, and gets to both.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from charted import Charted
from fleet import eventually
from virtfleet_dev.fabric import node_name
from virtfleet_dev.paths import checkout

pytestmark = pytest.mark.local_rig

GUEST = "with-claim"
SIZE = 1 << 30
FILES, RAW = "database", "raw"
DEVICES = {FILES: "/dev/vdb", RAW: "/dev/vdc"}
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Storage:
    """What the two volumes are on the node."""

    folder: Path
    image: Path
    """The file that the block device is."""
    device: str


@dataclass(frozen=True)
class Claims:
    """A cluster whose storage is claimed."""

    charted: Charted
    storage: Storage

    def holders(self) -> dict[str, dict[str, Any]]:
        """Return the pods that hold claims and are not being deleted, by claim."""
        found = {}
        for pod in self.charted.kubectl.list("pods", "--field-selector=metadata.namespace=default"):
            volumes = pod["spec"].get("volumes", ())
            claims = [one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one]
            if "deletionTimestamp" not in pod["metadata"]:
                found |= dict.fromkeys(claims, pod)
        return found

    def held(self) -> dict[str, str]:
        """Return the UIDs of the pods that run and hold a claim, by claim."""
        running = {claim: pod for claim, pod in self.holders().items() if pod["status"].get("phase") == "Running"}
        return {claim: pod["metadata"]["uid"] for claim, pod in running.items()}

    def write(self, text: str) -> None:
        """Have the guest write a line to each volume."""
        for claim, device in DEVICES.items():
            status, said = self._inside(f"printf '{text} {claim}' | dd of={device} conv=notrunc 2>&1 && sync")
            assert status == 0, said

    def read(self) -> dict[str, str]:
        """Return what the guest finds at the beginning of each volume, by claim."""
        return {claim: self._inside(f"head -c 64 {device} | tr -d '\\0'")[1] for claim, device in DEVICES.items()}

    def sizes(self) -> dict[str, int]:
        """Return the bytes that the guest says each volume has, by claim."""
        sectors = {claim: self._inside(f"cat /sys/block/{device[5:]}/size")[1] for claim, device in DEVICES.items()}
        return {claim: 512 * int(count) for claim, count in sectors.items()}

    def boot(self) -> str:
        """Return what differs after each start of the guest."""
        return self._inside(BOOT_ID)[1]

    def bound(self) -> dict[str, str]:
        """Return the volumes of the claims that are bound, by claim."""
        found = {claim: self.charted.kubectl.get("pvc", claim) or {} for claim in DEVICES}
        assert {one["status"]["phase"] for one in found.values()} == {"Bound"}
        return {claim: one["spec"]["volumeName"] for claim, one in found.items()}

    def mounts(self) -> list[str]:
        """Return what the node has mounted of local volumes."""
        lines = self.charted.local.pod_node.node.run("cat", "/proc/self/mountinfo").splitlines()
        return [line for line in lines if "kubernetes.io~local-volume" in line]

    def _inside(self, command: str) -> tuple[int, str]:
        return self.charted.fleet.inside(GUEST, command)


def volume(name: str, mode: str, path: Path | str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node_name(1)]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"volume-{name}"},
        "spec": {
            "capacity": {"storage": SIZE},
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": mode,
            "storageClassName": "local",
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Storage]:
    top = tmp_path_factory.mktemp("storage")
    folder, image = top / "folder", top / "image"
    folder.mkdir()
    with image.open("wb") as file:
        file.truncate(SIZE)
    with ExitStack() as last:
        made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
        device = made.stdout.strip()
        last.callback(subprocess.run, ["losetup", "--detach", device], check=True)
        yield Storage(folder, image, device)


@pytest.fixture(scope="module")
def claims(storage: Storage, bundled: Charted) -> Claims:
    """The chart without claims as disks, and two volumes that wait for whom they are bound to."""
    local = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    bundled.kubectl.apply(local, volume("files", "Filesystem", storage.folder), volume("raw", "Block", storage.device))
    return Claims(bundled, storage)


def apply_machine(charted: Charted) -> None:
    """Apply the example, with a claim of a block volume as a further disk."""
    example = list(yaml.safe_load_all((checkout() / "examples" / "pvc-disk.yaml").read_text()))
    claim = deepcopy(next(one for one in example if one["kind"] == "PersistentVolumeClaim"))
    claim["metadata"]["name"], claim["spec"]["volumeMode"] = RAW, "Block"
    machine = next(one for one in example if one["kind"] == "VirtualMachine")
    machine["spec"]["disks"].append({"name": "raw", "source": {"pvc": {"claimName": RAW}}})
    charted.kubectl.apply(claim, *example)


def with_volumes(charted: Charted, folder: Path) -> Charted:
    """Return the same cluster with values that allow claims as disks."""
    values = yaml.safe_load(charted.values.read_text()) | {"volumes": {"enabled": True}}
    path = folder / "values.yaml"
    path.write_text(yaml.safe_dump(values))
    return replace(charted, values=path)


def test_a_claim_is_a_disk_that_outlives_its_holder_and_its_machine(
    claims: Claims, tmp_path: Path, time_of: Callable[[str], Any]
) -> None:
    charted, fleet = claims.charted, claims.charted.fleet
    apply_machine(charted)
    eventually(lambda: fleet.condition(GUEST, "Ready").get("reason") == "VolumesDisabled", "it says why it waits")
    assert claims.holders() == {}

    with_volumes(charted, tmp_path).install()
    with time_of("machine with claims Ready"):
        fleet.wait_ready(GUEST)
    boot, first = claims.boot(), claims.held()
    assert len(claims.mounts()) >= len(DEVICES)
    assert first.keys() == DEVICES.keys()
    volumes = claims.bound()
    assert claims.sizes() == dict.fromkeys(DEVICES, SIZE)
    claims.write("kept on")

    charted.kubectl.run("delete", "pod", claims.holders()[FILES]["metadata"]["name"], "--wait=false")
    again = eventually(
        lambda: (held := claims.held()).get(FILES, first[FILES]) != first[FILES] and held, "another pod holds the claim"
    )
    assert again[RAW] == first[RAW]
    claims.write("written on")
    assert claims.boot() == boot

    fleet.patch(GUEST, {"runStrategy": "Halted"})
    fleet.wait_status(GUEST, "Stopped")
    eventually(lambda: not _pods_with_claims(charted), "nobody holds the claims of a machine that is off")
    eventually(lambda: not claims.mounts(), "the kubelet has let go of the volumes, for the first pod as well")
    assert claims.bound() == volumes

    fleet.patch(GUEST, {"runStrategy": "Always"})
    eventually(lambda: fleet.status(GUEST).get("printableStatus") == "Running", "it runs again")
    fleet.wait_ready(GUEST)
    assert claims.read() == {name: f"written on {name}" for name in DEVICES}
    assert claims.boot() != boot

    fleet.delete(GUEST)
    eventually(lambda: not _pods_with_claims(charted), "nobody holds the claims of a machine that is gone")
    assert claims.bound() == volumes
    disk = claims.storage.folder / "disk.img"
    assert disk.stat().st_size == SIZE
    for path, name in ((disk, FILES), (claims.storage.image, RAW)):
        assert path.read_bytes().startswith(f"written on {name}".encode())


def _pods_with_claims(charted: Charted) -> list[str]:
    """Return the names of all pods that hold claims, of those that are being deleted as well."""
    pods = json.loads(charted.kubectl.run("get", "pods", "-n", "default", "-o", "json"))["items"]
    return [
        pod["metadata"]["name"]
        for pod in pods
        if any("persistentVolumeClaim" in one for one in pod["spec"].get("volumes", ()))
    ]
