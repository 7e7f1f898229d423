"""What end-to-end tests say of machines, in the words of a user: apply, wait, look, delete."""

import base64
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt
import libvirt_qemu

from virtfleet_dev.cluster import Cluster, is_ready
from virtfleet_dev.guest_image import CMDLINE
from virtfleet_dev.kubectl import KubectlError
from virtfleet_dev.node import Node

PATIENCE_SECONDS = 120.0
"""Longer than anything takes here that works: an emulated guest boots in 5 s, on a busy machine in 20."""

libvirt.registerErrorHandler(lambda *_: None, None)  # its default prints what the tests expect


def eventually(holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Poll until something is true and return it; AssertionError with what it was about."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


@dataclass(frozen=True)
class Fleet:
    """A cluster, as tests use it."""

    cluster: Cluster

    def image(self, name: str, file: str = "guest.qcow2", **spec: Any) -> dict[str, Any]:
        """Apply a VMImage of a file that the cluster's web server has."""
        source = {"http": {"url": f"http://images.virtfleet.test/{file}"}}
        return self.apply("VMImage", name, {"source": source, **spec})

    def kernel(self, name: str) -> dict[str, Any]:
        """Apply a VMImage with the test guest's kernel."""
        web = "http://images.virtfleet.test"
        source = {"http": {"url": f"{web}/vmlinuz"}, "initrd": {"url": f"{web}/initrd.img"}}
        return self.apply("VMImage", name, {"type": "Kernel", "source": source})

    def machine(self, name: str, **spec: Any) -> dict[str, Any]:
        """Apply a VirtualMachine that boots the kernel image `tiny` unless the spec says otherwise.

        Nor is its guest asked to end: one that still boots does not listen, and would be waited for.
        """
        default = {
            "memory": {"guest": "160Mi"},
            "kernelBoot": {"image": {"name": "tiny"}, "cmdline": f"{CMDLINE}"},
            "terminationGracePeriodSeconds": 0,
        }
        return self.apply("VirtualMachine", name, {**default, **spec})

    def apply(self, kind: str, name: str, spec: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
        """Apply an object as `kubectl apply` does."""
        manifest = {
            "apiVersion": "virtfleet.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        self.cluster.kubectl.apply(manifest, namespace=namespace)
        return manifest

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Change a machine's spec as a user would with `kubectl patch`."""
        self.cluster.kubectl.run("patch", "vm", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def get(self, name: str, kind: str = "vm") -> dict[str, Any]:
        """Return an object, {} when there is none or the API server is away."""
        try:
            return self.cluster.kubectl.get(kind, name) or {}
        except KubectlError:
            return {}

    def status(self, name: str, kind: str = "vm") -> dict[str, Any]:
        """Return an object's status."""
        status: dict[str, Any] = self.get(name, kind).get("status", {})
        return status

    def wait_ready(self, name: str, kind: str = "vm") -> dict[str, Any]:
        """Wait until an object is Ready for its present generation, and return it."""

        def ready() -> dict[str, Any] | None:
            found = self.get(name, kind)
            current = found.get("status", {}).get("observedGeneration") == found.get("metadata", {}).get("generation")
            return found if current and is_ready(found) else None

        try:
            found: dict[str, Any] = eventually(ready, f"{kind} {name} is Ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name, kind)}") from None
        return found

    def wait_status(self, name: str, word: str) -> dict[str, Any]:
        """Wait until a machine's printableStatus is this word."""

        def reached() -> dict[str, Any] | None:
            status = self.status(name)
            return status if status.get("printableStatus") == word else None

        try:
            found: dict[str, Any] = eventually(reached, f"{name} is {word}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.status(name)}") from None
        return found

    def condition(self, name: str, kind_of: str, kind: str = "vm") -> dict[str, Any]:
        """Return a condition of an object, {} when it has none of this type."""
        conditions = self.status(name, kind).get("conditions", [])
        return next((c for c in conditions if c["type"] == kind_of), {})

    def give_no_time(self, *names: str) -> None:
        """Have machines that end not wait for their guests; one that is gone needs none."""
        spec = {"spec": {"terminationGracePeriodSeconds": 0}}
        for name in names:
            self.cluster.kubectl.attempt("patch", "vm", name, "--type=merge", "-p", json.dumps(spec))

    def delete(self, *names: str, kind: str = "vm") -> None:
        """Delete objects and wait until they are gone."""
        if not names:
            return
        self.cluster.kubectl.run("delete", kind, *names, "--wait=false", "--ignore-not-found")
        for name in names:
            eventually(lambda name=name: self.cluster.kubectl.get(kind, name) is None, f"{kind} {name} is gone")

    def domains(self, node: Node) -> dict[str, bool]:
        """Return the UUIDs of a node's domains, and whether each runs, from libvirt itself."""
        connection = libvirt.open(node.uri)
        try:
            return {domain.UUIDString(): bool(domain.isActive()) for domain in connection.listAllDomains()}
        finally:
            connection.close()

    def domain_xml(self, node: Node, uid: str) -> str:
        """Return the XML of a running domain, from libvirt itself."""
        connection = libvirt.open(node.uri)
        try:
            return str(connection.lookupByUUIDString(uid).XMLDesc())
        finally:
            connection.close()

    def running(self) -> list[str]:
        """Return the UUIDs of all domains that run anywhere, one for each place it runs."""
        return [uid for node in self.cluster.nodes for uid, active in self.domains(node).items() if active]

    def console(self, node: Node, uid: str) -> str:
        """Return what a guest printed so far, from the files that virtlogd keeps."""
        files = sorted((node.directory / "virtfleet/machines" / uid).glob("console.log*"), reverse=True)
        return "".join(path.read_text(errors="replace") for path in files)

    def inside(self, name: str, command: str, seconds: float = 30) -> tuple[int, str]:
        """Run a shell command in a machine's guest by its agent; return exit status and output."""
        found = self.get(name)
        node = next(n for n in self.cluster.nodes if n.name == found["status"]["nodeName"])
        connection = libvirt.open(node.uri)
        try:
            return run_inside(connection.lookupByUUIDString(found["metadata"]["uid"]), command, seconds)
        finally:
            connection.close()

    def pool(self, node: Node) -> list[Path]:
        """Return the files of machines in a node's pool."""
        return [p for p in (node.directory / "virtfleet/pools/default/disks").rglob("*") if p.is_file()]

    def snapshots(self, node: Node) -> list[Path]:
        """Return what a node's pool has of snapshots."""
        return list((node.directory / "virtfleet/pools/default/snapshots").rglob("*"))


def run_inside(domain: libvirt.virDomain, command: str, seconds: float = 30) -> tuple[int, str]:
    """Run a shell command in a guest by its agent; return exit status and output."""
    given = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
    pid = eventually(lambda: _try_agent(domain, "guest-exec", given), "the guest agent")["pid"]
    ended = lambda: (said := _ask_agent(domain, "guest-exec-status", {"pid": pid}))["exited"] and said  # noqa: E731
    said = eventually(ended, repr(command), seconds)
    return said.get("exitcode", -1), base64.b64decode(said.get("out-data", "")).decode(errors="replace")


def _try_agent(domain: libvirt.virDomain, command: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """Give the guest agent a command, unless it is not there yet."""
    try:
        return _ask_agent(domain, command, arguments)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_AGENT_UNRESPONSIVE:
            raise
        return None


def _ask_agent(domain: libvirt.virDomain, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Give the guest agent a command: https://www.qemu.org/docs/master/interop/qemu-ga-ref.html."""
    text = json.dumps({"execute": command, "arguments": arguments})
    answer: dict[str, Any] = json.loads(libvirt_qemu.qemuAgentCommand(domain, text, 10, 0))["return"]
    return answer
