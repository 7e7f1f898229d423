"""The kinds as a user of kubectl meets them: columns, short names, explanations, merging, refusals."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from virtfleet_api.crd import crd_name
from virtfleet_api.kinds import KINDS
from virtfleet_api.resource import Resource
from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.kubectl import Kubectl

STATUS = {
    "observedGeneration": 1,
    "printableStatus": "Running",
    "nodeName": "node-a",
    "machine": {
        "uuid": "u",
        "machineType": "pc-q35-7.2",
        "cpuModel": "qemu64",
        "vcpus": {"current": 2, "max": 2},
        "memory": {"current": "1Gi"},
    },
    "interfaces": [{"name": "eth0", "mac": "52:54:00:00:00:01", "ipAddresses": ["10.0.2.15", "10.0.2.15"]}],
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "Running", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    ],
}


def machine(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def kubectl(control_plane: ControlPlane) -> Iterator[Kubectl]:
    yield control_plane.kubectl
    control_plane.kubectl.run("delete", "vm", "--all", "--wait=false")


@pytest.fixture(scope="module")
def web(kubectl: Kubectl) -> str:
    kubectl.apply(machine("web"))
    body = {**json.loads(kubectl.run("get", "vm", "web", "-o", "json")), "status": STATUS}
    path = "/apis/virtfleet.io/v1alpha1/namespaces/default/virtualmachines/web/status"
    kubectl.run("replace", "--raw", path, "-f", "-", stdin=json.dumps(body))
    return "web"


def test_columns(kubectl: Kubectl, web: str) -> None:
    head, row = kubectl.run("get", "vm", web).splitlines()
    assert head.split() == ["NAME", "STATUS", "READY", "NODE", "IP", "VCPU", "MEMORY", "AGE"]
    assert row.split()[:7] == ["web", "Running", "True", "node-a", "10.0.2.15", "2", "1Gi"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_column_has_a_field(kubectl: Kubectl, kind: type[Resource]) -> None:
    definition = json.loads(kubectl.run("get", "crd", crd_name(kind), "-o", "json"))
    columns = definition["spec"]["versions"][0]["additionalPrinterColumns"]
    for path in (column["jsonPath"] for column in columns if column["jsonPath"].startswith((".spec", ".status"))):
        words = [word.split("[")[0] for word in path.split("[?(")[0].strip(".").split(".")]
        assert kubectl.run("explain", f"{kind.plural}.{'.'.join(words)}")


@pytest.mark.parametrize("name", [name for kind in KINDS for name in (kind.plural, *kind.short_names)])
def test_names(kubectl: Kubectl, name: str) -> None:
    kubectl.run("get", name)


def test_get_all_shows_machines(kubectl: Kubectl, web: str) -> None:
    assert f"virtualmachine.virtfleet.io/{web}" in kubectl.run("get", "all", "-o", "name")
    assert f"virtualmachine.virtfleet.io/{web}" in kubectl.run("get", "virtfleet", "-o", "name")


def test_explain_is_the_reference(kubectl: Kubectl) -> None:
    assert "Always: restart whenever it stops." in " ".join(kubectl.run("explain", "vm.spec.runStrategy").split())
    assert "at least the image's" in " ".join(kubectl.run("explain", "vm.spec.disks.size").split())


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"runStrategi": "Always"}, "runStrategi"),
        ({"disks": [{"name": "root", "source": {"blank": {}}, "iops": 5}]}, "iops"),
        ({"gpus": [{"name": "gpu0", "vendor": "10de"}]}, "vendor"),
    ],
)
def test_an_unknown_field_is_refused(kubectl: Kubectl, spec: dict[str, Any], field: str) -> None:
    done = kubectl.attempt("apply", "-f", "-", stdin=yaml.safe_dump(machine("odd", **spec)))
    assert done.returncode != 0
    assert f'unknown field "{field}"' in done.stderr or f'unknown field "spec.{field}"' in done.stderr


def apply_as(kubectl: Kubectl, manager: str, body: dict[str, Any]) -> None:
    kubectl.run("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=yaml.safe_dump(body))


def disk(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "source": {"blank": {}}, "size": "1Gi", **more}


def test_two_appliers_share_a_list_of_disks(kubectl: Kubectl) -> None:
    apply_as(kubectl, "team-a", machine("shared", disks=[disk("root", pool="fast")]))
    apply_as(kubectl, "team-b", machine("shared", disks=[disk("data")]))
    apply_as(kubectl, "team-b", machine("shared", disks=[disk("data", size="2Gi")]))
    stored = kubectl.get("vm", "shared")
    assert stored is not None
    assert {d["name"]: (d["size"], d["pool"]) for d in stored["spec"]["disks"]} == {
        "root": ("1Gi", "fast"),
        "data": ("2Gi", "default"),
    }
    apply_as(kubectl, "team-a", machine("shared", disks=[]))
    stored = kubectl.get("vm", "shared")
    assert stored is not None
    assert [d["name"] for d in stored["spec"]["disks"]] == ["data"]


def test_a_reference_belongs_to_one_applier(kubectl: Kubectl) -> None:
    image = {"name": "debian-12", "namespace": "images"}
    apply_as(kubectl, "team-a", machine("whole", kernelBoot={"image": image}))
    body = yaml.safe_dump(machine("whole", kernelBoot={"image": {"name": "debian-12", "namespace": "mine"}}))
    done = kubectl.attempt("apply", "--server-side", "--field-manager=team-b", "-f", "-", stdin=body)
    assert done.returncode != 0
    assert ".spec.kernelBoot.image" in done.stderr


def test_applying_again_is_no_change(kubectl: Kubectl) -> None:
    body = machine("calm", disks=[disk("root")], networks=[{"name": "eth0", "user": {}}])
    kubectl.apply(body)
    assert kubectl.attempt("diff", "-f", "-", stdin=yaml.safe_dump(body)).returncode == 0
