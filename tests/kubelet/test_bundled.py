"""A node with nothing of virtualization: libvirtd, QEMU and OVN are the chart's, and guests outlive their pods.

QEMU is not root here, as Debian has it, and chowns disks as libvirt does it by default.
"""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from charted import DAEMON, IMAGE, MACHINE, NAMESPACE, OPERATOR, Charted, Life
from fleet import eventually

pytestmark = pytest.mark.local_rig

LIBVIRT = "daemonset/virtfleet-libvirt"
ADDRESS = "10.1.0.80"


def switch() -> dict[str, Any]:
    return {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualSwitch",
        "metadata": {"name": "tenant"},
        "spec": {"type": "Overlay", "subnet": {"cidr": "10.1.0.0/24", "gateway": "10.1.0.1"}},
    }


def machine() -> dict[str, Any]:
    return {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": MACHINE, "namespace": "default"},
        "spec": {
            "memory": {"guest": "160Mi"},
            "disks": [{"name": "root", "source": {"image": {"name": MACHINE}}}],
            "networks": [{"name": "eth0", "switch": "tenant", "ipAddress": ADDRESS}],
        },
    }


@pytest.fixture(scope="module")
def running(bundled: Charted) -> Iterator[Charted]:
    """A machine on a switch."""
    bundled.kubectl.apply(switch())
    bundled.fleet.apply("VMImage", MACHINE, {"source": {"http": {"url": IMAGE}}})
    bundled.kubectl.apply(machine())
    bundled.fleet.wait_ready(MACHINE)
    yield bundled
    bundled.fleet.delete(MACHINE)
    bundled.fleet.delete(MACHINE, kind="vmimage")


def pids(charted: Charted, program: str) -> tuple[int, ...]:
    (node,) = charted.local.nodes
    return node.pids(program)


def groups(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text()


def command(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def print_on_console(charted: Charted, line: str) -> None:
    status, said = charted.fleet.inside(MACHINE, f"echo {line} >/dev/console")
    assert status == 0, said
    eventually(lambda: line in charted.console(), f"the console shows {line}")


def test_guests_have_cards_of_the_switch_and_belong_to_no_pod(running: Charted) -> None:
    life = running.life()
    status, said = running.fleet.inside(MACHINE, "ip -4 -o address show dev eth0")
    assert (status, f" {ADDRESS}/24 " in said) == (0, True), said
    assert Path(f"/proc/{life.pid}").stat().st_uid != 0
    assert Path(f"/proc/{life.pid}/oom_score_adj").read_text().strip() == "0"
    for pid in (life.pid, *pids(running, "virtlogd"), *pids(running, "libvirtd")):
        assert "kubepods" not in groups(pid)
    watches = [pid for pid in pids(running, "virtfleet-libvi") if "host\0virtlogd" in command(pid)]
    assert ["kubepods" in groups(pid) for pid in watches] == [True]  # so pods have cgroups here


def test_every_pod_is_deleted_and_the_guest_runs_on_with_its_console(running: Charted) -> None:
    before, pods, logging = running.life(), running.pod_names(), pids(running, "virtlogd")
    running.kubectl.run("-n", NAMESPACE, "delete", "pods", "--all", "--timeout=90s")
    for workload in (LIBVIRT, DAEMON, OPERATOR):
        running.rolled_out(workload)
    running.kubectl.run("-n", NAMESPACE, "wait", "pods", "--all", "--for=condition=Ready", "--timeout=90s")
    assert running.pod_names("libvirt").isdisjoint(pods)
    assert running.life() == before
    assert pids(running, "virtlogd") == logging
    print_on_console(running, "after-the-pods")


def test_libvirtd_is_killed_and_the_guest_runs_on(running: Charted) -> None:
    before = running.life()
    (libvirtd,) = pids(running, "libvirtd")
    os.kill(libvirtd, signal.SIGKILL)
    eventually(lambda: pids(running, "libvirtd") not in ((), (libvirtd,)), "libvirtd is back")
    running.rolled_out(LIBVIRT)
    assert running.life() == before
    print_on_console(running, "after-libvirtd")


def test_the_chart_is_removed_and_installed_again_and_the_guest_runs_on(running: Charted) -> None:
    before = running.life()
    running.uninstall()
    assert pids(running, "libvirtd") == ()
    assert Path(f"/proc/{before.pid}").exists()
    running.install()
    assert running.life() == before
    print_on_console(running, "after-the-chart")


def test_a_machine_goes_back_to_its_memory(running: Charted) -> None:
    fleet, before = running.fleet, running.life()
    fleet.inside(MACHINE, "echo old >/tmp/state")
    fleet.apply("VMSnapshot", "before", {"virtualMachine": MACHINE})
    fleet.wait_ready("before", kind="vmsnapshot")
    fleet.inside(MACHINE, "echo new >/tmp/state")
    fleet.apply("VMRestore", "back", {"snapshot": "before", "target": {"virtualMachine": MACHINE}})
    eventually(lambda: fleet.status("back", kind="vmrestore").get("phase") == "Succeeded", "the machine is back")
    after = running.life()
    assert fleet.inside(MACHINE, "cat /tmp/state")[1].strip() == "old"
    assert (after.boot, after.pid != before.pid) == (before.boot, True)
    running.kubectl.run("delete", "vmrestore/back", "vmsnapshot/before")


def test_virtlogd_is_killed_and_a_guest_that_starts_then_has_a_console(running: Charted) -> None:
    before: Life = running.life()
    (virtlogd,) = pids(running, "virtlogd")
    os.kill(virtlogd, signal.SIGKILL)
    eventually(lambda: pids(running, "virtlogd") not in ((), (virtlogd,)), "virtlogd is back")
    assert running.life() == before
    running.fleet.patch(MACHINE, {"runStrategy": "Halted"})
    running.fleet.wait_status(MACHINE, "Stopped")
    running.fleet.patch(MACHINE, {"runStrategy": "Always"})
    eventually(lambda: running.fleet.status(MACHINE).get("printableStatus") == "Running", "it runs again")
    assert running.life().boot != before.boot
    print_on_console(running, "after-virtlogd")
