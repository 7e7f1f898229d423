"""The same machine always gives the same document, and the document is one that a node accepts."""

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.machine import Machine, Restart, Run
from virtfleet_api.virtual_machine import RunStrategy, VirtualMachine
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.core.catalog import image_references
from virtfleet_operator.core.compile import compile_deletion, compile_machine
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.references import find_images
from virtfleet_operator.core.verdict import Waiting

UID = "00000000-0000-0000-0000-{:012x}"


class Images:
    """A catalog in which every image a machine names exists and is shared."""

    def __init__(self, vm: VirtualMachine) -> None:
        kernel = vm.spec.kernel_boot and (vm.spec.kernel_boot.image.namespace or vm.metadata.namespace)
        self.kernel = (kernel, vm.spec.kernel_boot.image.name) if vm.spec.kernel_boot else None
        self.vm = vm
        self.numbers = {key: number for number, key in enumerate(image_references(vm))}

    def image(self, namespace: str, name: str) -> VMImage:
        return VMImage.model_validate(
            {
                "metadata": {"name": name, "namespace": namespace, "uid": UID.format(self.numbers[namespace, name])},
                "spec": {
                    "source": {"http": {"url": "https://example.org/x"}},
                    "type": "Kernel" if (namespace, name) == self.kernel else "Disk",
                    "shared": True,
                },
            }
        )

    def machine(self, namespace: str, name: str) -> VirtualMachine:
        """Return a machine on node-a that has every disk that is asked for."""
        names = sorted({d.source.disk.name for d in self.vm.spec.disks if d.source.disk})
        made = [{"name": n, "pool": "default", "capacity": "1Mi", "target": "vda"} for n in names]
        return VirtualMachine.model_validate(
            {
                "metadata": {"name": name, "namespace": namespace, "uid": UID.format(99)},
                "spec": {"memory": {"guest": "1Gi"}, "disks": [{"name": n, "source": {"blank": {}}} for n in names]},
                "status": {"nodeName": "node-a", "disks": made},
            }
        )

    def vm_class(self, _name: str) -> None:
        return None

    def image_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return ()

    def vm_disk(self, _namespace: str, _name: str) -> VMDisk | None:
        return None

    def disk_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return ()

    def snapshot(self, _namespace: str, _name: str) -> None:
        return None

    def unfinished_restores(self, _namespace: str) -> tuple[()]:
        return ()

    def node_machines(self, _name: str) -> tuple[str, ...]:
        return ()


class Nothing(Images):
    """A catalog of an empty cluster."""

    def image(self, _namespace: str, _name: str) -> None:  # type: ignore[override]
        return None


def compiled(vm: VirtualMachine) -> Machine | None:
    """The document, or None where a disk and the kernel name the same image, which is invalid."""
    sizing = resolve(vm, None)
    assert isinstance(sizing, Sizing)
    machine = compile_machine(vm, sizing, Images(vm), None)
    return machine if isinstance(machine, Machine) else None


@given(st.from_type(VirtualMachine))
def test_a_document_survives_the_wire(vm: VirtualMachine) -> None:
    machine = compiled(vm)
    if machine is not None:
        assert Machine.model_validate_json(machine.model_dump_json()) == machine
        assert compiled(vm) == machine


@given(st.from_type(VirtualMachine))
def test_addresses_are_unicast_distinct_and_kept_for_life(vm: VirtualMachine) -> None:
    machine = compiled(vm)
    if machine is None:
        return
    macs = [card.mac for card in machine.hardware.interfaces]
    assert len(set(macs)) == len(vm.spec.networks)
    assert all(mac.startswith("52:54:00:") for mac in macs)
    changed = vm.model_copy(
        update={
            "metadata": vm.metadata.model_copy(update={"generation": 99, "name": "other"}),
            "spec": vm.spec.model_copy(update={"disks": (), "run_strategy": RunStrategy.HALTED, "power_state": None}),
        }
    )
    again = compiled(changed)
    assert again is not None
    assert [card.mac for card in again.hardware.interfaces] == macs


@given(st.from_type(VirtualMachine))
def test_the_document_asks_for_what_the_spec_says(vm: VirtualMachine) -> None:
    machine = compiled(vm)
    if machine is None:
        return
    assert machine.uid == vm.metadata.uid
    assert machine.generation == vm.metadata.generation
    assert [d.name for d in machine.hardware.disks] == [d.name for d in vm.spec.disks]
    assert machine.hardware.memory_bytes == vm.spec.memory.guest
    assert machine.image_uids() <= {UID.format(n) for n in range(len(image_references(vm)))}
    assert len(machine.image_uids()) == len(image_references(vm))
    assert (machine.cloud_init is None) == (vm.spec.cloud_init is None)
    if machine.cloud_init:
        assert machine.hardware.cloud_init_digest == machine.cloud_init.digest()
    if machine.restart == Restart.ALWAYS:
        assert vm.spec.run_strategy == RunStrategy.ALWAYS
    if vm.spec.run_strategy == RunStrategy.HALTED:
        assert machine.run == Run.STOPPED


@given(st.from_type(VirtualMachine), st.booleans())
def test_a_deletion_waits_for_nothing_and_keeps_every_disk_with_its_policy(vm: VirtualMachine, known: bool) -> None:  # noqa: FBT001  drawn by hypothesis
    machine = compile_deletion(vm, None, Images(vm) if known else Nothing(vm))
    assert machine.run == Run.ABSENT
    said = [(d.name, d.pool, d.reclaim_policy) for d in machine.hardware.disks]
    assert said == [(d.name, d.pool, d.reclaim_policy) for d in vm.spec.disks]


@given(st.from_type(VirtualMachine))
def test_a_missing_image_is_waited_for_by_name(vm: VirtualMachine) -> None:
    found = find_images(vm, Nothing(vm))
    if image_references(vm):
        assert isinstance(found, Waiting)
        assert found.reason == "ImageNotFound"
        assert found.message.startswith("spec.")
    else:
        assert found == {}
