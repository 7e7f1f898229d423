"""Images that come from a user's machine and spread from node to node, as a user sees them."""

import hashlib
import os
import subprocess
from pathlib import Path

from fleet import Fleet, eventually
from virtfleet_dev.node import Node
from virtfleet_dev.paths import program


def vm(fleet: Fleet, *words: str | Path, kubeconfig: Path | None = None) -> "subprocess.CompletedProcess[str]":
    command = [program("kubectl-vm"), "--kubeconfig", kubeconfig or fleet.cluster.control_plane.kubeconfig, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def copy_of(node: Node, uid: str) -> Path:
    return node.directory / "virtfleet/pools/default/images" / uid / "disk"


def test_an_uploaded_image_spreads_to_the_nodes_of_its_machines(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "data.raw"
    file.write_bytes(os.urandom(24 << 20))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    done = vm(fleet, "image", "upload", "sent", "--file", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["VMImage sent is made.", "VMImage sent is Ready."]
    found = fleet.get("sent", "vmimage")
    assert (found["status"]["checksum"], found["status"]["format"]) == (f"sha256:{digest}", "raw")
    again = vm(fleet, "image", "upload", "sent", "--file", file)
    assert (again.returncode, "has its content already" in again.stderr) == (1, True)

    disks = [{"name": "data", "source": {"image": {"name": "sent"}}}]
    for node in fleet.cluster.nodes:
        fleet.machine(f"on-{node.name}", disks=disks, nodeSelector={"kubernetes.io/hostname": node.name})
    for node in fleet.cluster.nodes:
        fleet.wait_ready(f"on-{node.name}")
        assert hashlib.sha256(copy_of(node, found["metadata"]["uid"]).read_bytes()).hexdigest() == digest
    status = fleet.status("sent", "vmimage")
    assert [(node["name"], node["phase"]) for node in status["nodes"]] == [
        (node.name, "Ready") for node in fleet.cluster.nodes
    ]
    assert status["userCount"] == 2

    fleet.delete(*(f"on-{node.name}" for node in fleet.cluster.nodes))
    eventually(
        lambda: all("unusedSince" in node for node in fleet.status("sent", "vmimage")["nodes"]),
        "it is said that no machine uses the copies",
    )
    fleet.delete("sent", kind="vmimage")
    for node in fleet.cluster.nodes:
        assert not copy_of(node, found["metadata"]["uid"]).parent.exists()


def test_an_upload_goes_on_after_the_operator_is_killed(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "data.raw"
    file.write_bytes(os.urandom(96 << 20))
    fleet.apply("VMImage", "slow", {"source": {"upload": {}}})
    says = "kubectl vm image upload slow -n default --file FILE"
    eventually(lambda: says in fleet.condition("slow", "Ready", "vmimage").get("message", ""), "it says what to do")
    assert fleet.status("slow", "vmimage")["phase"] == "Pending"
    command = [program("kubectl-vm"), "--kubeconfig", fleet.cluster.control_plane.kubeconfig]
    with subprocess.Popen([*command, "image", "upload", "slow", "--file", file], stderr=subprocess.PIPE) as sending:
        eventually(lambda: fleet.status("slow", "vmimage").get("progress") is not None, "something has arrived")
        fleet.cluster.operator.kill()
        fleet.cluster.start_operator()
        assert sending.wait(timeout=120) == 0, sending.stderr and sending.stderr.read()
    status = fleet.wait_ready("slow", "vmimage")["status"]
    assert status["checksum"] == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    fleet.delete("slow", kind="vmimage")


def test_a_file_that_is_no_image_is_refused_with_its_reason(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(b"<!DOCTYPE html>".ljust(4096))
    done = vm(fleet, "image", "upload", "page", "--file", file)
    assert done.returncode == 1
    assert "The file is an HTML page" in done.stderr
    fleet.delete("page", kind="vmimage")


def test_who_may_make_images_may_not_therefore_upload(fleet: Fleet, tmp_path: Path) -> None:
    file = tmp_path / "data.raw"
    file.write_bytes(os.urandom(4096))
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["virtfleet.io"], "resources": ["vmimages"], "verbs": ["get", "list", "create"]}]
    name = {"name": "image-makers"}
    subject = {"apiGroup": group, "kind": "User", "name": "mia"}
    fleet.cluster.kubectl.apply(
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": name, "rules": rules},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": name,
            "roleRef": {"apiGroup": group, "kind": "Role", **name},
            "subjects": [subject],
        },
        namespace="default",
    )
    mia = fleet.cluster.control_plane.write_kubeconfig(tmp_path / "mia.kubeconfig", "mia", None)
    done = vm(fleet, "image", "upload", "mias", "--file", file, kubeconfig=mia)
    assert done.returncode == 1
    assert "You may not do this" in done.stderr
    fleet.delete("mias", kind="vmimage")
    fleet.cluster.kubectl.run("delete", "role,rolebinding", "image-makers")
