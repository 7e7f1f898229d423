"""Rules about a machine as a whole."""

import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine import CloudInit, PowerState, RunStrategy, VirtualMachine
from virtfleet_operator.core.validate.devices import device_problems
from virtfleet_operator.core.validate.disks import disk_problems
from virtfleet_operator.core.validate.names import is_label_key, is_label_value
from virtfleet_operator.core.validate.networks import network_problems
from virtfleet_operator.core.validate.pinning import missing_vcpu_problems
from virtfleet_operator.core.validate.scheduling import scheduling_problems
from virtfleet_operator.core.validate.sizes import size_problems, vcpus_of
from virtfleet_operator.core.verdict import quote

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""How far a user's clock may be ahead of the operator's; the tolerance that Kerberos has, too."""

_MACHINE_TYPE: Final = re.compile(r"(q35|i440fx|pc-(q35|i440fx)-[0-9]{1,2}\.[0-9]{1,2})\Z")
_CONTROL: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def machine_problems(vm: VirtualMachine, now: datetime, old: VirtualMachine | None = None) -> tuple[str, ...]:
    """Check a machine; `old` is what it replaces, where that is known."""
    return tuple(
        problem
        for rule in (
            binding_problems(vm.metadata, old.metadata if old else None),
            _power_problems(vm),
            _restart_problems(vm, now),
            _size_problems(vm),
            _machine_type_problems(vm),
            disk_problems(vm, old),
            network_problems(vm),
            device_problems(vm),
            _cloud_init_problems(vm.spec.cloud_init),
            _selector_problems(vm),
            scheduling_problems(vm.spec),
        )
        for problem in rule
    )


def binding_problems(meta: ObjectMeta, old: ObjectMeta | None) -> Iterator[str]:
    """Refuse a binding by hand: the operator sets label and finalizer in one write, and never moves the label."""
    where = f"metadata.labels[{NODE_LABEL}]"
    node = meta.labels.get(NODE_LABEL)
    if node is None:
        return
    before = old.labels.get(NODE_LABEL) if old else None
    if FINALIZER not in meta.finalizers and meta.deletion_timestamp is None:
        if before == node:
            yield f"metadata.finalizers: must hold {FINALIZER} while the machine is on a node: delete the machine"
        else:
            yield f"{where}: is set by virtfleet alone: remove it, and choose nodes with spec.nodeSelector"
    if before is not None and before != node:
        yield f'{where}: cannot change, as the machine is on node {quote(before)}: write "{before}"'


def _power_problems(vm: VirtualMachine) -> Iterator[str]:
    if vm.spec.power_state == PowerState.STOPPED and vm.spec.run_strategy != RunStrategy.MANUAL:
        yield (
            f"spec.powerState: Stopped contradicts runStrategy {vm.spec.run_strategy}: "
            "write runStrategy: Halted without powerState, or runStrategy: Manual"
        )


def _restart_problems(vm: VirtualMachine, now: datetime) -> Iterator[str]:
    wanted = vm.spec.restart_requested_at
    if wanted is None:
        return
    if wanted.tzinfo is None:
        said = wanted.isoformat()
        yield f"spec.restartRequestedAt: '{said}' has no time zone: write \"{said}Z\" for UTC"
    elif wanted > now + CLOCK_TOLERANCE:
        yield (
            f"spec.restartRequestedAt: '{wanted.isoformat()}' is in the future, and restarts are not scheduled: "
            f'write the current time, such as "{now:%Y-%m-%dT%H:%M:%SZ}"'
        )


def _size_problems(vm: VirtualMachine) -> Iterator[str]:
    yield from size_problems(vm.spec.cpu, vm.spec.memory)
    if vm.spec.class_name is None:
        yield from missing_vcpu_problems(vm.spec.cpu, max(vcpus_of(vm.spec.cpu), vm.spec.cpu.max_vcpus or 0))
    if vm.spec.memory.guest is None and vm.spec.class_name is None:
        yield 'spec.memory.guest: is missing: write a size such as "1Gi", or name a VMClass in spec.className'


def _machine_type_problems(vm: VirtualMachine) -> Iterator[str]:
    if not _MACHINE_TYPE.match(vm.spec.machine_type):
        yield (
            f"spec.machineType: {quote(vm.spec.machine_type)} is not a machine type of QEMU: "
            'write "q35", or "pc-q35-7.2" for a certain version'
        )


def _cloud_init_problems(cloud_init: CloudInit | None) -> Iterator[str]:
    if cloud_init is None:
        return
    texts = {"userData": cloud_init.user_data, "networkData": cloud_init.network_data}
    written = [name for name, text in texts.items() if text is not None]
    if cloud_init.secret_ref and written:
        yield (
            f"spec.cloudInit.secretRef: cannot stand beside {' and '.join(written)}: "
            "keep the Secret, or write the data here"
        )
    for name, text in texts.items():
        if line := control_character_line(text or ""):
            yield f"spec.cloudInit.{name}: has a control character in line {line}: write plain, unencoded text"


def control_character_line(text: str) -> int:
    """Return the line of the first character that no text file holds, 0 if there is none."""
    found = _CONTROL.search(text)
    return text.count("\n", 0, found.start()) + 1 if found else 0


def _selector_problems(vm: VirtualMachine) -> Iterator[str]:
    for key, value in vm.spec.node_selector.items():
        where = f"spec.nodeSelector[{quote(key)}]"
        if not is_label_key(key):
            yield f'{where}: is not a label name: write one such as "zone" or "example.org/zone"'
        if not is_label_value(value):
            yield (
                f"{where}: {quote(value)} is not a label value: "
                'write at most 63 letters, digits, "-", "_" and ".", such as "east"'
            )
