"""The images that a machine names, found and checked.

An image that is not there yet is waited for; one that can never serve makes the machine invalid. What another
namespace does not share is as good as not there, and the sentence does not tell which of the two it is.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from virtfleet_api.virtual_machine import Disk, ImageReference, VirtualMachine
from virtfleet_api.vm_image import ImageType, VMImage
from virtfleet_operator.core.catalog import Catalog, image_key, is_independent
from virtfleet_operator.core.validate.image import image_problems
from virtfleet_operator.core.verdict import Invalid, Waiting, quote

Images = Mapping[tuple[str, str], VMImage]
"""By (namespace, name)."""

_NOUNS: Final = {ImageType.DISK: "a disk", ImageType.ISO: "a CD", ImageType.KERNEL: "a kernel"}
_INSTEAD: Final = {ImageType.KERNEL: ", or use spec.kernelBoot"}
"""Where an image goes that is no disk."""


def find_images(vm: VirtualMachine, catalog: Catalog) -> Images | Waiting | Invalid:
    """Return the images that a machine needs, or what is wrong with them."""
    found: dict[tuple[str, str], VMImage] = {}
    for where, reference in _references(vm):
        image = _visible(vm, reference, catalog)
        if image is None:
            return Waiting("ImageNotFound", f"{where}: {_absent(vm, reference)}")
        if image_problems(image):
            bad = f"the VMImage {quote(reference.name)} is not valid: see its condition Ready, or name another"
            return Waiting("ImageInvalid", f"{where}: {bad}")
        found[image_key(vm, reference)] = image
    problems = tuple(_problems(vm, found))
    return Invalid(problems) if problems else found


def reference_problems(vm: VirtualMachine, catalog: Catalog) -> tuple[str, ...]:
    """Check what a machine says of the images that are there already; for admission, where nothing is waited for."""
    keys = {image_key(vm, reference): _visible(vm, reference, catalog) for _, reference in _references(vm)}
    return tuple(_problems(vm, {key: image for key, image in keys.items() if image}))


def _references(vm: VirtualMachine) -> Iterator[tuple[str, ImageReference]]:
    for index, disk in enumerate(vm.spec.disks):
        if disk.source.image and not is_independent(vm, disk):
            yield f"spec.disks[{index}].source.image", disk.source.image
        if disk.source.iso:
            yield f"spec.disks[{index}].source.iso", disk.source.iso
    if vm.spec.kernel_boot:
        yield "spec.kernelBoot.image", vm.spec.kernel_boot.image


def _visible(vm: VirtualMachine, reference: ImageReference, catalog: Catalog) -> VMImage | None:
    """Return the image if the machine may use it and it stays."""
    namespace, name = image_key(vm, reference)
    image = catalog.image(namespace, name)
    if image is None or (image.metadata.deletion_timestamp and vm.status.machine is None):
        return None
    return image if namespace == vm.metadata.namespace or image.spec.shared else None


def _absent(vm: VirtualMachine, reference: ImageReference) -> str:
    namespace, name = image_key(vm, reference)
    if namespace == vm.metadata.namespace:
        return f"there is no VMImage {quote(name)}: create it or name another"
    return (
        f"there is no VMImage {quote(name)} in namespace {quote(namespace)} that is shared: "
        "create it there with spec.shared: true, or name another"
    )


def _problems(vm: VirtualMachine, images: Images) -> Iterator[str]:
    for index, disk in enumerate(vm.spec.disks):
        image = disk.source.image and images.get(image_key(vm, disk.source.image))
        if image:
            yield from _disk_problems(vm, f"spec.disks[{index}]", disk, image)
        medium = disk.source.iso and images.get(image_key(vm, disk.source.iso))
        if medium and medium.spec.type != ImageType.ISO:
            said = f"{quote(medium.metadata.name)} is no CD-ROM: name a VMImage of type ISO"
            yield f"spec.disks[{index}].source.iso: {said}"
    boot = vm.spec.kernel_boot
    kernel = boot and images.get(image_key(vm, boot.image))
    if kernel and kernel.spec.type != ImageType.KERNEL:
        found = _NOUNS[kernel.spec.type]
        yield f"spec.kernelBoot.image: {quote(kernel.metadata.name)} is {found}: name a VMImage of type Kernel"


def _disk_problems(vm: VirtualMachine, where: str, disk: Disk, image: VMImage) -> Iterator[str]:
    name, size = quote(image.metadata.name), image.status.virtual_size
    if image.spec.type != ImageType.DISK:
        found, instead = _NOUNS[image.spec.type], _INSTEAD.get(image.spec.type, "")
        yield f"{where}.source.image: {name} is {found}: name a VMImage of type Disk{instead}"
    elif disk.size is not None and size is not None and disk.size < size:
        yield f"{where}.size: '{disk.size}' is smaller than the image {name}: write \"{size}\" or leave it out"
    backing = next((d.backing for d in vm.status.disks if d.name == disk.name), None)
    if backing is not None and backing != image.metadata.uid:
        yield (
            f"{where}.source: cannot change once the disk exists: "
            "write what it was, or add a new disk under another name"
        )
