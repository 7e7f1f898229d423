"""From objects to documents: run strategies, images, cloud-init, deletion."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from virtfleet_api.machine import Machine
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.core.compile import compile_deletion, compile_machine, derive_mac
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.references import reference_problems
from virtfleet_operator.core.secret import SecretData, parse_secret, secret_reference
from virtfleet_operator.core.verdict import Invalid, Waiting

Make = Callable[..., VirtualMachine]
MakeImage = Callable[..., VMImage]
GIB = 2**30
SIZE = Sizing(1, 2, 1, "host-model", GIB)


def compiled(vm: VirtualMachine, objects: Any, secret: SecretData | Waiting | None = None) -> Machine:
    machine = compile_machine(vm, SIZE, objects, secret)
    assert isinstance(machine, Machine)
    return machine


@pytest.mark.parametrize(
    ("strategy", "power", "run", "restart"),
    [
        ("Always", None, "Running", "Always"),
        ("Always", "Running", "Running", "Always"),
        ("Always", "Paused", "Paused", "Always"),
        ("RerunOnFailure", None, "Running", "OnFailure"),
        ("RerunOnFailure", "Running", "Running", "OnFailure"),
        ("RerunOnFailure", "Paused", "Paused", "OnFailure"),
        ("Once", None, "Running", "Never"),
        ("Once", "Running", "Running", "Never"),
        ("Once", "Paused", "Paused", "Never"),
        ("Manual", None, "Running", "Never"),
        ("Manual", "Running", "Running", "Never"),
        ("Manual", "Paused", "Paused", "Never"),
        ("Manual", "Stopped", "Stopped", "Never"),
        ("Halted", None, "Stopped", "Never"),
        ("Halted", "Running", "Stopped", "Never"),
        ("Halted", "Paused", "Stopped", "Never"),
    ],
)
def test_run_strategies(machine: Make, objects: Any, strategy: str, power: str | None, run: str, restart: str) -> None:
    document = compiled(machine(runStrategy=strategy, powerState=power), objects)
    assert (document.run, document.restart) == (run, restart)


def test_a_drive_holds_an_iso_image_or_nothing(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image(type="ISO")
    drives = [
        {"name": "full", "bus": "cdrom", "source": {"iso": {"name": "debian-12"}}},
        {"name": "empty", "bus": "cdrom", "source": {}},
    ]
    document = compiled(machine(disks=drives), objects)
    assert [disk.source.kind for disk in document.hardware.disks] == ["Iso", "Empty"]
    assert document.image_uids() == {objects.images["shop", "debian-12"].metadata.uid}
    objects.images["shop", "debian-12"] = image()
    refused = compile_machine(machine(disks=drives), SIZE, objects, None)
    assert isinstance(refused, Invalid)
    assert refused.problems == ("spec.disks[0].source.iso: 'debian-12' is no CD-ROM: name a VMImage of type ISO",)


def test_the_whole_document(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image()
    vm = machine(
        disks=[
            {"name": "root", "size": "20Gi", "bootOrder": 1, "source": {"image": {"name": "debian-12"}}},
            {"name": "data", "size": "1000000001", "source": {"blank": {}}, "pool": "fast", "reclaimPolicy": "Retain"},
        ],
        networks=[
            {"name": "eth0", "user": {}},
            {"name": "eth1", "user": {}, "macAddress": "52:54:00:AB:CD:EF", "model": "e1000e"},
        ],
        cloudInit={"userData": "#cloud-config\n"},
        restartRequestedAt="2026-11-23T12:00:00+02:00",
        terminationGracePeriodSeconds=30,
        guestAgent=False,
        display={},
    )
    document = compiled(vm, objects).to_json_dict()
    digest = document["hardware"].pop("cloudInitDigest")  # type: ignore[attr-defined]
    assert len(digest) == 64
    assert document == {
        "uid": vm.metadata.uid,
        "namespace": "shop",
        "name": "web-1",
        "generation": 3,
        "run": "Running",
        "restart": "Always",
        "startToken": "2026-11-23T10:00:00+00:00",
        "gracePeriodSeconds": 30,
        "hardware": {
            "machineType": "q35",
            "sockets": 1,
            "cores": 2,
            "threads": 1,
            "cpuModel": "host-model",
            "dedicatedCpus": False,
            "affinity": {},
            "scheduling": {"reservationHz": 0},
            "memoryBytes": GIB,
            "devices": [],
            "deferred": [],
            "disks": [
                {
                    "name": "root",
                    "pool": "default",
                    "source": {"kind": "Image", "imageUid": image().metadata.uid, "clone": "Linked"},
                    "sizeBytes": 20 * GIB,
                    "bus": "virtio",
                    "cache": "none",
                    "bootOrder": 1,
                    "reclaimPolicy": "Delete",
                },
                {
                    "name": "data",
                    "pool": "fast",
                    "source": {"kind": "Blank"},
                    "sizeBytes": 1000000512,
                    "bus": "virtio",
                    "cache": "none",
                    "reclaimPolicy": "Retain",
                },
            ],
            "interfaces": [
                {"name": "eth0", "mac": "52:54:00:09:75:b0", "model": "virtio", "state": "up"},
                {"name": "eth1", "mac": "52:54:00:ab:cd:ef", "model": "e1000e", "state": "up"},
            ],
            "guestAgent": False,
            "display": "vga",
        },
        "cloudInit": {
            "metaData": f'{{"instance-id": "{vm.metadata.uid}", "local-hostname": "web-1"}}',
            "userData": "#cloud-config\n",
            "networkData": "",
        },
    }


def test_a_derived_address_depends_on_machine_and_card_alone() -> None:
    assert derive_mac("u", "eth0") == derive_mac("u", "eth0")
    assert len({derive_mac(uid, nic) for uid in ("u", "v") for nic in ("eth0", "eth1")}) == 4


def test_a_kernel_is_started_directly(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "linux"] = image("linux", type="Kernel")
    document = compiled(machine(kernelBoot={"image": {"name": "linux"}, "cmdline": "quiet"}), objects)
    assert document.hardware.kernel is not None
    assert (document.hardware.kernel.image_uid, document.hardware.kernel.cmdline) == (image().metadata.uid, "quiet")


# images


def on_image(**reference: str) -> dict[str, Any]:
    return {"disks": [{"name": "root", "source": {"image": reference}}]}


def test_an_image_of_another_namespace_must_be_shared_and_is_not_betrayed(
    machine: Make, image: MakeImage, objects: Any
) -> None:
    vm = machine(**on_image(name="debian-12", namespace="images"))
    absent = compile_machine(vm, SIZE, objects, None)
    objects.images["images", "debian-12"] = image(metadata={"namespace": "images"})
    private = compile_machine(vm, SIZE, objects, None)
    assert (
        absent
        == private
        == Waiting(
            "ImageNotFound",
            "spec.disks[0].source.image: there is no VMImage 'debian-12' in namespace 'images' that is shared: "
            "create it there with spec.shared: true, or name another",
        )
    )
    objects.images["images", "debian-12"] = image(metadata={"namespace": "images"}, shared=True)
    assert isinstance(compile_machine(vm, SIZE, objects, None), Machine)


def test_an_image_of_the_own_namespace_needs_not_be_shared(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image()
    assert compiled(machine(**on_image(name="debian-12", namespace="shop")), objects).image_uids()


def test_an_image_that_goes_serves_old_machines_only(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image(metadata={"deletionTimestamp": "2026-11-23T10:00:00Z"})
    status = {
        "machine": {
            "uuid": "u",
            "machineType": "q35",
            "cpuModel": "x",
            "vcpus": {"current": 1, "max": 1},
            "memory": {"current": "1Gi"},
        }
    }
    assert isinstance(compile_machine(machine(**on_image(name="debian-12")), SIZE, objects, None), Waiting)
    assert isinstance(compile_machine(machine(status, **on_image(name="debian-12")), SIZE, objects, None), Machine)


def test_no_node_is_sent_an_image_that_is_not_valid(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image(source={"http": {"url": "http://169.254.169.254/latest"}})
    assert compile_machine(machine(**on_image(name="debian-12")), SIZE, objects, None) == Waiting(
        "ImageInvalid",
        "spec.disks[0].source.image: the VMImage 'debian-12' is not valid: see its condition Ready, or name another",
    )


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        (
            {"disks": [{"name": "root", "source": {"image": {"name": "linux"}}}]},
            "spec.disks[0].source.image: 'linux' is a kernel: name a VMImage of type Disk, or use spec.kernelBoot",
        ),
        (
            {"disks": [{"name": "root", "source": {"image": {"name": "installer"}}}]},
            "spec.disks[0].source.image: 'installer' is a CD: name a VMImage of type Disk",
        ),
        (
            {"kernelBoot": {"image": {"name": "installer"}}},
            "spec.kernelBoot.image: 'installer' is a CD: name a VMImage of type Kernel",
        ),
        (
            {"kernelBoot": {"image": {"name": "debian-12"}}},
            "spec.kernelBoot.image: 'debian-12' is a disk: name a VMImage of type Kernel",
        ),
        (
            {"disks": [{"name": "root", "size": "1Gi", "source": {"image": {"name": "debian-12"}}}]},
            "spec.disks[0].size: '1Gi' is smaller than the image 'debian-12': write \"2Gi\" or leave it out",
        ),
    ],
)
def test_an_image_that_can_never_serve(
    machine: Make, image: MakeImage, objects: Any, spec: dict[str, Any], problem: str
) -> None:
    objects.images["shop", "debian-12"] = image(status={"virtualSize": "2Gi"})
    objects.images["shop", "linux"] = image("linux", type="Kernel")
    objects.images["shop", "installer"] = image("installer", type="ISO")
    assert compile_machine(machine(**spec), SIZE, objects, None) == Invalid((problem,))
    assert reference_problems(machine(**spec), objects) == (problem,)


def test_a_disk_may_be_as_large_as_its_image(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image(status={"virtualSize": "2Gi"})
    disk = {"name": "root", "size": "2Gi", "source": {"image": {"name": "debian-12"}}}
    assert reference_problems(machine(disks=[disk]), objects) == ()


def test_a_linked_disk_keeps_its_image(machine: Make, image: MakeImage, objects: Any) -> None:
    objects.images["shop", "debian-12"] = image()
    disk = {"name": "root", "pool": "default", "capacity": "2Gi", "target": "vda"}
    same = machine({"disks": [disk | {"backing": image().metadata.uid}]}, **on_image(name="debian-12"))
    other = machine({"disks": [disk | {"backing": "another"}]}, **on_image(name="debian-12"))
    full = machine({"disks": [disk]}, **on_image(name="debian-12"))
    assert isinstance(compile_machine(same, SIZE, objects, None), Machine)
    assert isinstance(compile_machine(full, SIZE, objects, None), Machine)
    answer = compile_machine(other, SIZE, objects, None)
    assert isinstance(answer, Invalid)
    assert answer.message.startswith("spec.disks[0].source: cannot change once the disk exists")


# cloud-init


@pytest.mark.parametrize("name", ["web-1", "true", "12345", "1e3", "null", "web.shop.example.org"])
def test_meta_data_reads_as_what_was_meant_whatever_the_name(machine: Make, objects: Any, name: str) -> None:
    vm = machine(metadata={"name": name}, cloudInit={})
    files = compiled(vm, objects).cloud_init
    assert files is not None
    assert yaml.safe_load(files.meta_data) == {"instance-id": vm.metadata.uid, "local-hostname": name}
    assert (files.user_data, files.network_data) == ("", "")


SECRETIVE = {"cloudInit": {"secretRef": {"name": "web"}}}


def test_a_machine_that_runs_waits_for_its_secret_and_one_that_stops_does_not(machine: Make, objects: Any) -> None:
    waiting = parse_secret(machine(**SECRETIVE), None)
    assert waiting == Waiting(
        "SecretNotFound",
        "spec.cloudInit.secretRef: Secret 'web' does not exist: create it, or name another",
        watched=False,
    )
    assert compile_machine(machine(**SECRETIVE), SIZE, objects, waiting) == waiting
    document = compiled(machine(**SECRETIVE, runStrategy="Halted"), objects, waiting)
    assert (document.cloud_init, document.hardware.cloud_init_digest) == (None, None)


def test_a_secret_is_sent_and_never_shown(machine: Make, objects: Any) -> None:
    content = {"userData": b"#cloud-config\npassword: hunter2\n", "networkData": b"version: 2\n", "other": b"\xff"}
    secret = parse_secret(machine(**SECRETIVE), content)
    assert isinstance(secret, SecretData)
    assert "hunter2" not in repr(secret)
    document = compiled(machine(**SECRETIVE), objects, secret)
    assert document.cloud_init is not None
    assert document.cloud_init.user_data == "#cloud-config\npassword: hunter2\n"
    assert document.cloud_init.network_data == "version: 2\n"
    assert "hunter2" not in document.without_secrets().model_dump_json()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "has no key userData"),
        ({"userData": b"\xff\xfe"}, "has userData that is not plain text"),
        ({"userData": b"a\0b"}, "has userData that is not plain text"),
        ({"userData": b"x" * 65537}, "has userData that is not plain text"),
        ({"userData": b"", "networkData": b"\x1b[2J"}, "has networkData that is not plain text"),
    ],
)
def test_a_secret_that_cannot_serve_is_waited_for_without_its_content(
    machine: Make, content: dict[str, bytes], says: str
) -> None:
    answer = parse_secret(machine(**SECRETIVE), content)
    assert isinstance(answer, Waiting)
    assert answer.reason == "SecretInvalid"
    assert answer.message.startswith(f"spec.cloudInit.secretRef: Secret 'web' {says}")


def test_a_secret_is_looked_for_in_the_machines_namespace(machine: Make) -> None:
    assert secret_reference(machine(**SECRETIVE)) == ("shop", "web")
    assert secret_reference(machine(cloudInit={"userData": "x"})) is None
    assert parse_secret(machine(), {"userData": b"x"}) is None


# deletion


def test_a_deletion_remembers_the_image_of_a_linked_disk(machine: Make, objects: Any) -> None:
    backing = "99999999-2222-3333-4444-555555555555"
    status = {"disks": [{"name": "root", "pool": "default", "capacity": "2Gi", "target": "vda", "backing": backing}]}
    document = compile_deletion(machine(status, **on_image(name="gone")), None, objects)
    assert document.run == "Absent"
    assert document.image_uids() == {backing}


def vm_class(**spec: Any) -> VMClass:
    return VMClass.model_validate({"metadata": {"name": "small"}, "spec": spec})


def test_a_class_fills_what_the_machine_leaves_out(machine: Make) -> None:
    small = vm_class(cpu={"cores": 4, "threads": 2, "model": "qemu64"}, memory={"guest": "2Gi"})
    vm = machine(className="small", cpu={"cores": 1}, memory={})
    for asked, cores, size in ((vm, 1, 2 * GIB), (machine(className="small"), 4, GIB)):
        sizing = resolve(asked, small)
        assert isinstance(sizing, Sizing)
        assert replace(sizing, deferred=()) == Sizing(1, cores, 2, "qemu64", size)
    assert resolve(machine(), None) == Sizing(1, 1, 1, "host-model", GIB)


def test_memory_is_rounded_up_to_what_a_guest_can_have(machine: Make) -> None:
    sizing = resolve(machine(memory={"guest": "1G"}), None)
    assert isinstance(sizing, Sizing)
    assert sizing.memory_bytes == 954 * 2**20


def test_a_class_that_is_missing_is_waited_for(machine: Make) -> None:
    assert resolve(machine(className="small"), None) == Waiting(
        "ClassNotFound", "spec.className: there is no VMClass 'small': create it or name another"
    )


@pytest.mark.parametrize(
    ("spec", "of_class", "problem"),
    [
        (
            {"memory": {}},
            {},
            "spec.memory.guest: is missing, and VMClass 'small' has none: write a size such as \"1Gi\"",
        ),
        (
            {"cpu": {"cores": 64}},
            {"cpu": {"sockets": 8}},
            "spec.cpu: sockets x cores x threads make 512 vCPUs: write at most 255 in total, such as cores: 8",
        ),
    ],
)
def test_a_machine_that_its_class_makes_impossible(
    machine: Make, spec: dict[str, Any], of_class: dict[str, Any], problem: str
) -> None:
    assert resolve(machine(className="small", **spec), vm_class(**of_class)) == Invalid((problem,))


def test_times_are_compared_in_one_zone(machine: Make, objects: Any) -> None:
    tokens = {
        compiled(machine(restartRequestedAt=text), objects).start_token
        for text in ("2026-11-23T10:00:00Z", "2026-11-23T12:00:00+02:00", "2026-11-23T05:00:00-05:00")
    }
    assert tokens == {datetime(2026, 11, 23, 10, tzinfo=UTC).isoformat()}
    assert compiled(machine(), objects).start_token == ""
