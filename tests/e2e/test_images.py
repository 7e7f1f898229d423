"""Images as a user sees them: progress, reasons, and a base that is not pulled from under its clones."""

import hashlib
import subprocess

from fleet import Fleet, eventually


def test_a_checksum_is_held_and_its_failure_said(fleet: Fleet) -> None:
    content = fleet.cluster.images.joinpath("guest.qcow2").read_bytes()
    url = "http://images.virtfleet.test/guest.qcow2"
    good, bad = f"sha256:{hashlib.sha256(content).hexdigest()}", "sha256:" + "0" * 64
    fleet.apply("VMImage", "checked", {"source": {"http": {"url": url, "checksum": good}}})
    fleet.apply("VMImage", "forged", {"source": {"http": {"url": url, "checksum": bad}}})
    status = fleet.wait_ready("checked", "vmimage")["status"]
    assert (status["phase"], status["format"], status["virtualSize"]) == ("Ready", "qcow2", "40Mi")
    eventually(lambda: fleet.status("forged", "vmimage").get("phase") == "Failed", "the forged image is refused")
    ready = fleet.condition("forged", "Ready", "vmimage")
    assert (ready["status"], ready["reason"]) == ("False", "ChecksumMismatch")
    for node in fleet.cluster.nodes:
        assert not list((node.directory / "virtfleet/pools/default/images").rglob("*.partial"))
    fleet.delete("checked", "forged", kind="vmimage")


def test_an_image_with_a_backing_file_reads_nothing_of_the_host(fleet: Fleet) -> None:
    path = fleet.cluster.images / "backed.qcow2"
    path.unlink(missing_ok=True)
    command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(path), "1M"]
    subprocess.run(command, check=True)
    fleet.image("backed", "backed.qcow2")
    eventually(lambda: fleet.status("backed", "vmimage").get("phase") == "Failed", "the image is refused")
    ready = fleet.condition("backed", "Ready", "vmimage")
    assert ready["reason"] == "UnsafeImage"
    assert "backing file" in ready["message"]
    fleet.delete("backed", kind="vmimage")


def test_a_base_with_users_is_not_deleted(fleet: Fleet) -> None:
    fleet.image("base")
    fleet.machine("clone", kernelBoot=None, disks=[{"name": "root", "source": {"image": {"name": "base"}}}])
    fleet.wait_ready("clone")
    uid = fleet.get("base", "vmimage")["metadata"]["uid"]
    done = fleet.cluster.kubectl.attempt("delete", "vmimage", "base", "--wait=false")
    assert done.returncode != 0
    assert "default/clone" in done.stderr
    assert fleet.get("base", "vmimage")
    fleet.delete("clone")
    fleet.delete("base", kind="vmimage")
    for node in fleet.cluster.nodes:
        assert not (node.directory / "virtfleet/pools/default/images" / uid).exists()


def test_a_machine_waits_for_its_image_and_says_so(fleet: Fleet) -> None:
    disk = {"name": "root", "source": {"image": {"name": "late"}}}
    fleet.machine("patient", kernelBoot=None, disks=[disk])
    waiting = eventually(lambda: fleet.condition("patient", "Ready").get("message"), "a reason")
    assert "late" in waiting
    fleet.image("late")
    fleet.wait_ready("patient")
    fleet.delete("patient")
    fleet.delete("late", kind="vmimage")
