"""Rules about devices of the host: those that machines ask for, and the classes that administrators make of them."""

from collections.abc import Iterator, Sequence

from virtfleet_api.device import DeviceClassRule, DeviceSelector, Gpu, GpuMode
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.verdict import quote


def device_problems(vm: VirtualMachine) -> Iterator[str]:
    """Check the GPUs and other devices of a machine."""
    names: set[str] = set()
    gpus = ((f"spec.gpus[{index}]", gpu.name) for index, gpu in enumerate(vm.spec.gpus))
    others = ((f"spec.hostDevices[{index}]", device.name) for index, device in enumerate(vm.spec.host_devices))
    for where, name in (*gpus, *others):
        if name in names:
            yield f"{where}.name: {quote(name)} is used twice: write a name that no other device of the machine has"
        names.add(name)
    drawn = 0
    for index, gpu in enumerate(vm.spec.gpus):
        yield from _gpu_problems(f"spec.gpus[{index}]", gpu)
        drawn += gpu.mode is GpuMode.VIRGL
        if gpu.mode is GpuMode.VIRGL and drawn > 1:
            yield f"spec.gpus[{index}].mode: a machine has at most one Virgl GPU: remove this one"


def _gpu_problems(where: str, gpu: Gpu) -> Iterator[str]:
    if gpu.mode is GpuMode.VIRGL and gpu.device is not None:
        yield f"{where}.device: has no meaning with mode Virgl, which draws with any GPU of the host: remove it"
    if gpu.mode is not GpuMode.VIRGL and gpu.device is None:
        yield f'{where}.device: is missing: write a device class, such as "nvidia.com/A10"'


def device_rule_problems(rules: Sequence[DeviceClassRule], where: str) -> Iterator[str]:
    """Check device classes; `where` is the field or key that they are in."""
    names: set[str] = set()
    for index, rule in enumerate(rules):
        at = f"{where}[{index}]"
        if rule.device in names:
            yield f"{at}.device: {quote(rule.device)} is used twice: write all its selectors in one rule"
        names.add(rule.device)
        yield from _selector_problems(f"{at}.selectors", rule.selectors)


def _selector_problems(where: str, selectors: Sequence[DeviceSelector]) -> Iterator[str]:
    for index, selector in enumerate(selectors):
        if not selector.model_dump(exclude_none=True):
            yield f'{where}[{index}]: matches every device: write what tells them apart, such as vendor: "10de"'
    if len({selector.mediated_type is None for selector in selectors}) > 1:
        yield (
            f"{where}: some name a mediatedType and some do not, and a class is made of whole devices or of mediated "
            "ones: write two classes"
        )
