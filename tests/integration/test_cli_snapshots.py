"""`kubectl vm snapshot`, `snapshots` and `restore` at a real API server; the test says what the operator would say."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from virtfleet_dev.control_plane import ControlPlane
    from virtfleet_dev.kubectl import Kubectl

PROGRAM = str(Path(sys.executable).with_name("kubectl-vm"))
DEADLINE_SECONDS = 60.0
NAMESPACE = "snapshots"
GROUP = "virtfleet.io/v1alpha1"


@dataclass
class Lab:
    """The API server, and the operator's hand."""

    kubectl: Kubectl

    def machine(self, name: str) -> None:
        spec = {"disks": [{"name": "root", "size": "1Gi", "source": {"blank": {}}}]}
        manifest = {"apiVersion": GROUP, "kind": "VirtualMachine", "metadata": {"name": name}, "spec": spec}
        self.kubectl.apply(manifest, namespace=NAMESPACE)

    def snapshot(self, name: str, machine: str = "web-1", **status: Any) -> None:
        manifest = {"apiVersion": GROUP, "kind": "VMSnapshot", "metadata": {"name": name}}
        self.kubectl.apply({**manifest, "spec": {"virtualMachine": machine}}, namespace=NAMESPACE)
        self.say("vmsnapshots", name, **status)

    def say(self, plural: str, name: str, *, message: str = "", **status: Any) -> None:
        """Write a status, as the operator does."""
        found = self.kubectl.get(plural, name, NAMESPACE)
        assert found
        kind = "Complete" if plural == "vmrestores" else "Ready"
        good = status.get("phase") in {"Ready", "Succeeded"}
        said = {"type": kind, "status": str(good), "reason": "Said", "message": message}
        conditions = [{**said, "lastTransitionTime": "2026-03-01T12:00:00Z"}]
        path = f"/apis/{GROUP}/namespaces/{NAMESPACE}/{plural}/{name}/status"
        body = json.dumps({**found, "status": {"conditions": conditions, **status}})
        self.kubectl.run("replace", "--raw", path, "-f", "-", stdin=body)

    def objects(self, plural: str) -> list[dict[str, Any]]:
        """Return the objects of a kind, of this test alone."""
        return [one for one in self.kubectl.list(plural) if one["metadata"]["namespace"] == NAMESPACE]

    async def comes(self, plural: str) -> dict[str, Any]:
        """Wait for the one object of a kind that has no status yet."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                items = await asyncio.to_thread(self.objects, plural)
                if new := [one for one in items if one["status"] == {"observedGeneration": 0}]:
                    return new[0]
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def program(self, *arguments: str, terminal: int | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run the program; stdin and stderr may be a terminal."""
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *arguments,
            *("-n", NAMESPACE, "--kubeconfig", str(self.kubectl.kubeconfig)),
            stdin=asyncio.subprocess.DEVNULL if terminal is None else terminal,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE if terminal is None else terminal,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run the program to its end: exit status, stdout, stderr."""
        async with self.program(*arguments) as process:
            return await ending(process)


async def ending(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), (err or b"").decode()


@pytest.fixture
def lab(control_plane: ControlPlane) -> Iterator[Lab]:
    kubectl = control_plane.kubectl
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    made = Lab(kubectl)
    made.machine("web-1")
    yield made
    kubectl.run("-n", NAMESPACE, "delete", "vm,vmsnapshots,vmrestores", "--all")


async def test_a_capture_is_waited_for_and_described(lab: Lab) -> None:
    options = ("--mode", "disk", "--no-quiesce", "--exclude-disk", "tmp", "--exclude-disk", "swap", "--retain")
    async with lab.program("snapshot", "web-1", *options) as process:
        made = await lab.comes("vmsnapshots")
        name = made["metadata"]["name"]
        await asyncio.to_thread(lab.say, "vmsnapshots", name, phase="Capturing", progress="42%")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), 2)
        ready = {"phase": "Ready", "size": "812Mi", "pauseMilliseconds": 41, "indications": ["Online"]}
        await asyncio.to_thread(lab.say, "vmsnapshots", name, **ready)
        status, out, err = await ending(process)
    assert made["spec"] == {
        "virtualMachine": "web-1",
        "mode": "Disk",
        "quiesce": False,
        "excludeDisks": ["tmp", "swap"],
        "deletionPolicy": "Retain",
    }
    assert name.startswith("web-1-20")
    assert (status, err) == (0, ""), "no bar where nobody looks"
    said = (
        f"VMSnapshot {NAMESPACE}/{name} is Ready and takes 812MiB. It was captured from the running guest. "
        "The guest stood still for 41 ms."
    )
    assert out.splitlines() == [
        f"vmsnapshot.virtfleet.io/{name} created",
        said,
    ]


async def test_a_capture_that_fails_is_an_error(lab: Lab) -> None:
    async with lab.program("snapshot", "web-1", "before") as process:
        await lab.comes("vmsnapshots")
        await asyncio.to_thread(lab.say, "vmsnapshots", "before", phase="Failed", message="Node a: no space is left.")
        status, out, err = await ending(process)
    assert (status, out) == (1, "vmsnapshot.virtfleet.io/before created\n")
    assert err == f"VMSnapshot {NAMESPACE}/before failed: Node a: no space is left.\n"


async def test_a_capture_need_not_be_waited_for(lab: Lab) -> None:
    assert (await lab.run("snapshot", "web-1", "later", "--no-wait"))[0] == 0
    lab.say("vmsnapshots", "later", phase="Pending", message="Node a does not answer.")
    status, _, err = await lab.run("snapshot", "web-1", "later")
    assert (status, "already exists" in err) == (1, True)
    status, _, err = await lab.run("snapshot", "web-1", "never", "--timeout", "1s")
    assert (status, "never is not done within 1 s, and goes on" in err) == (1, True)


async def test_what_is_not_there_is_said(lab: Lab) -> None:
    status, _, err = await lab.run("snapshot", "web-9")
    assert (status, f"VirtualMachine {NAMESPACE}/web-9 does not exist" in err) == (1, True)
    status, _, err = await lab.run("restore", "web-1", "gone")
    assert (status, f"VMSnapshot {NAMESPACE}/gone does not exist" in err) == (1, True)
    assert (await lab.run("snapshots", "web-9"))[0] == 1
    assert lab.objects("vmsnapshots") == []


async def test_the_tree_of_one_machine_and_of_all(lab: Lab) -> None:
    status, out, err = await lab.run("snapshots", "web-1")
    assert (status, out, err) == (0, "", f"No snapshots found of VirtualMachine {NAMESPACE}/web-1.\n")
    lab.snapshot("base", phase="Ready", size="1536Mi", pauseMilliseconds=7, indications=["Online", "Memory"])
    lab.snapshot("next", phase="Ready", parent="base")
    lab.snapshot("dump", machine="db", phase="Capturing", progress="42%")
    _, out, _ = await lab.run("snapshots", "web-1")
    names = [line.split()[:2] for line in out.splitlines()]
    assert names == [["MACHINE", "SNAPSHOT"], ["web-1", "base"], ["web-1", "└─next"]]
    assert [word in out for word in ("1.5GiB", "7ms", "Online,Memory")] == [True, True, True]
    _, out, _ = await lab.run("snapshots")
    assert [line.split()[1] for line in out.splitlines()] == ["SNAPSHOT", "dump", "base", "└─next"]


async def test_a_machine_is_brought_back(lab: Lab) -> None:
    lab.snapshot("base", phase="Ready", readyToUse=True)
    async with lab.program("restore", "web-1", "base", "--no-memory", "--snapshot-first") as process:
        made = await lab.comes("vmrestores")
        name = made["metadata"]["name"]
        machines = [{"name": "web-1", "phase": "Succeeded", "warm": False}]
        done = {"phase": "Succeeded", "done": "1/1", "machines": machines, "snapshotBefore": f"{name}-before"}
        await asyncio.to_thread(lab.say, "vmrestores", name, **done)
        status, out, err = await ending(process)
    assert name.startswith("base-")
    assert made["spec"] == {
        "snapshot": "base",
        "target": {"virtualMachine": "web-1"},
        "memory": False,
        "snapshotFirst": True,
    }
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        f"vmrestore.virtfleet.io/{name} created",
        "virtualmachine.virtfleet.io/web-1 restored",
        f"vmsnapshot.virtfleet.io/{name}-before has the state before",
    ]


async def test_new_machines_are_made_and_those_that_failed_are_an_error(lab: Lab) -> None:
    lab.snapshot("warm", phase="Ready", readyToUse=True)
    async with lab.program("restore", "--new", "build", "--count", "2", "warm") as process:
        made = await lab.comes("vmrestores")
        machines = [
            {"name": "build-1", "phase": "Succeeded", "warm": True},
            {"name": "build-2", "phase": "Failed", "message": "Node a: no space."},
        ]
        failed = {"phase": "Failed", "done": "1/2", "machines": machines, "message": "1 of 2 failed."}
        await asyncio.to_thread(lab.say, "vmrestores", made["metadata"]["name"], **failed)
        status, out, err = await ending(process)
    new = made["spec"]["target"]["newVirtualMachines"]
    assert (new["namePrefix"], new["count"], new["resetMachineId"]) == ("build", 2, False)
    assert (status, out.splitlines()[1:]) == (
        1,
        ["virtualmachine.virtfleet.io/build-1 created, its guest goes on where it was"],
    )
    assert err.splitlines()[1:] == ["build-2: Node a: no space."]


async def test_a_snapshot_of_another_machine_brings_none_back(lab: Lab) -> None:
    lab.snapshot("base", machine="db", phase="Ready")
    status, _, err = await lab.run("restore", "web-1", "base")
    assert (status, "is of VirtualMachine db, not web-1" in err) == (1, True)
    assert lab.objects("vmrestores") == []


@pytest.mark.parametrize(
    "arguments",
    [
        ("base",),
        ("web-1", "base", "--count", "2"),
        ("--new", "a", "web-1", "base"),
        ("--new", "a", "base", "--snapshot-first"),
        ("--new", "a", "base", "--count", "257"),
    ],
)
async def test_what_makes_no_sense_is_refused(lab: Lab, arguments: tuple[str, ...]) -> None:
    lab.snapshot("base", phase="Ready")
    assert (await lab.run("restore", *arguments))[0] == 2
    assert lab.objects("vmrestores") == []


@pytest.mark.parametrize(("answer", "status", "restores"), [(b"n\n", 1, 0), (b"y\n", 0, 1)])
async def test_a_person_is_asked_first(lab: Lab, answer: bytes, status: int, restores: int) -> None:
    lab.snapshot("base", phase="Ready")
    restore = ("restore", "web-1", "base", "--no-wait")
    async with screen() as (master, slave), lab.program(*restore, terminal=slave) as process:
        await shows(master, b"is lost. Go on? [y/N]:")
        assert lab.objects("vmrestores") == []
        os.write(master, answer)
        assert (await ending(process))[0] == status
    assert len(lab.objects("vmrestores")) == restores


async def test_a_person_who_says_yes_at_once_sees_how_far_it_is(lab: Lab) -> None:
    lab.snapshot("base", phase="Ready")
    restore = ("restore", "web-1", "base", "--yes")
    async with screen() as (master, slave), lab.program(*restore, terminal=slave) as process:
        name = (await lab.comes("vmrestores"))["metadata"]["name"]
        await asyncio.to_thread(lab.say, "vmrestores", name, phase="Restoring", done="1/4")
        await shows(master, b"1/4")
        await asyncio.to_thread(lab.say, "vmrestores", name, phase="Succeeded", done="4/4")
        assert (await ending(process))[0] == 0


@asynccontextmanager
async def screen() -> AsyncIterator[tuple[int, int]]:
    master, slave = pty.openpty()
    os.set_blocking(master, False)
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


async def shows(master: int, text: bytes) -> None:
    """Wait until the terminal shows the text."""
    shown = b""
    async with asyncio.timeout(DEADLINE_SECONDS):
        while text not in shown:
            try:
                shown += os.read(master, 65536)
            except BlockingIOError:
                await asyncio.sleep(0.02)
