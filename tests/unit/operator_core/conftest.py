"""Small makers of objects, given to tests as fixtures."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_restore import VMRestore
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.room import Room

UID = "11111111-2222-3333-4444-555555555555"


@dataclass
class Objects:
    """A catalog of what a test puts into it."""

    images: dict[tuple[str, str], VMImage] = field(default_factory=dict)
    classes: dict[str, VMClass] = field(default_factory=dict)
    sources: dict[tuple[str, str], VirtualMachine] = field(default_factory=dict)
    users: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    kept: dict[tuple[str, str], VMDisk] = field(default_factory=dict)
    disk_machines: tuple[str, ...] = ()
    node_room: Room | None = None
    snapshots: tuple[VMSnapshot, ...] = ()
    restores: tuple[str, ...] = ()
    unfinished: tuple[VMRestore, ...] = ()

    def image(self, namespace: str, name: str) -> VMImage | None:
        return self.images.get((namespace, name))

    def machine(self, namespace: str, name: str) -> VirtualMachine | None:
        return self.sources.get((namespace, name))

    def vm_disk(self, namespace: str, name: str) -> VMDisk | None:
        return self.kept.get((namespace, name))

    def disk_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return self.disk_machines

    def vm_class(self, name: str) -> VMClass | None:
        return self.classes.get(name)

    def image_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return self.users

    def room(self, _vm: VirtualMachine) -> Room | None:
        return self.node_room

    def snapshot(self, _namespace: str, name: str) -> VMSnapshot | None:
        return next((snapshot for snapshot in self.snapshots if snapshot.metadata.name == name), None)

    def unfinished_restores(self, _namespace: str) -> tuple[VMRestore, ...]:
        return self.unfinished

    def machine_snapshots(self, _namespace: str, _name: str) -> tuple[VMSnapshot, ...]:
        return self.snapshots

    def snapshot_restores(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return self.restores

    def node_machines(self, _name: str) -> tuple[str, ...]:
        return self.machines


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 11, 23, 10, tzinfo=UTC)


@pytest.fixture
def objects() -> Objects:
    return Objects()


@pytest.fixture
def machine() -> Callable[..., VirtualMachine]:
    """A machine of namespace shop, with what the test says of its spec, status and metadata."""

    def make(
        status: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
    ) -> VirtualMachine:
        meta = {"name": "web-1", "namespace": "shop", "uid": UID, "generation": 3} | (metadata or {})
        body = {"metadata": meta, "spec": {"memory": {"guest": "1Gi"}} | spec, "status": status or {}}
        return VirtualMachine.model_validate(body)

    return make


@pytest.fixture
def image() -> Callable[..., VMImage]:
    """An image of namespace shop."""

    def make(
        name: str = "debian-12",
        status: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        **spec: Any,
    ) -> VMImage:
        meta = {"name": name, "namespace": "shop", "uid": UID.replace("1", "a"), "generation": 1} | (metadata or {})
        source = {"source": {"http": {"url": "https://images.example.org/debian-12.qcow2"}}}
        return VMImage.model_validate({"metadata": meta, "spec": source | spec, "status": status or {}})

    return make
