"""Which manifest `kubectl vm clone` makes: all of the source but what must be the source's alone."""

import json
from typing import Any

import pytest
import yaml

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_cli.clone import build_clone, check_names, describe_created, plan_clone, render
from virtfleet_cli.errors import CliError
from virtfleet_cli.power import GRACE_ANNOTATION

SOURCE: dict[str, Any] = {
    "apiVersion": "virtfleet.io/v1alpha1",
    "kind": "VirtualMachine",
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "11111111-2222-3333-4444-555555555555",
        "resourceVersion": "7",
        "generation": 3,
        "creationTimestamp": "2026-03-01T12:00:00Z",
        "finalizers": ["virtfleet.io/machine"],
        "labels": {"app": "web", "virtfleet.io/node": "node-a"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {
        "runStrategy": "RerunOnFailure",
        "powerState": "Paused",
        "restartRequestedAt": "2026-03-01T12:00:00Z",
        "memory": {"guest": "1Gi"},
        "disks": [
            {"name": "root", "size": "20Gi", "source": {"image": {"name": "debian"}, "clone": "Full"}, "pool": "fast"},
            {"name": "data", "size": "1Gi", "source": {"blank": {}}, "reclaimPolicy": "Retain"},
        ],
        "networks": [{"name": "eth0", "user": {}, "macAddress": "52:54:00:12:34:56"}],
        "cloudInit": {"secretRef": {"name": "web"}},
    },
    "status": {"printableStatus": "Paused", "nodeName": "node-a"},
}


def changed(**spec: Any) -> dict[str, Any]:
    return {**SOURCE, "spec": {**SOURCE["spec"], **spec}}


def test_a_clone_is_the_source_without_what_is_its_own() -> None:
    before = json.dumps(SOURCE)
    made = build_clone(SOURCE, "web-2", full=False, start=None)
    assert made == {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": "web-2", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "runStrategy": "RerunOnFailure",
            "memory": {"guest": "1Gi"},
            "disks": [
                {
                    "name": "root",
                    "size": "20Gi",
                    "source": {"disk": {"virtualMachine": "web-1", "name": "root"}},
                    "pool": "fast",
                },
                {
                    "name": "data",
                    "size": "1Gi",
                    "source": {"disk": {"virtualMachine": "web-1", "name": "data"}},
                    "reclaimPolicy": "Retain",
                },
            ],
            "networks": [{"name": "eth0", "user": {}}],
            "cloudInit": {"secretRef": {"name": "web"}},
        },
    }
    assert json.dumps(SOURCE) == before
    VirtualMachine.model_validate(made)


def test_full_copies_every_disk_whole() -> None:
    made = build_clone(SOURCE, "web-2", full=True, start=None)
    assert {disk["source"]["clone"] for disk in made["spec"]["disks"]} == {"Full"}


@pytest.mark.parametrize(
    ("spec", "start", "strategy", "power", "goal"),
    [
        ({"runStrategy": "Halted"}, None, "Halted", None, "Stopped"),
        ({"runStrategy": "Halted"}, True, "Always", None, "Running"),
        ({"runStrategy": "Once", "powerState": "Running"}, True, "Once", None, "Running"),
        ({"runStrategy": "Always"}, False, "Halted", None, "Stopped"),
        ({"runStrategy": "Manual", "powerState": "Stopped"}, None, "Manual", "Stopped", "Stopped"),
        ({"runStrategy": "Manual", "powerState": "Stopped"}, True, "Manual", None, "Running"),
        ({"runStrategy": "Manual", "powerState": "Stopped"}, False, "Halted", None, "Stopped"),
    ],
)
def test_whether_it_runs(spec: dict[str, Any], start: bool | None, strategy: str, power: str | None, goal: str) -> None:  # noqa: FBT001 -- a column
    made = build_clone(changed(**spec), "web-2", full=False, start=start)
    assert (made["spec"]["runStrategy"], made["spec"].get("powerState")) == (strategy, power)
    assert plan_clone(made).goal == {goal}


def test_a_grace_period_that_a_forced_stop_took_away_is_back() -> None:
    forced = changed(terminationGracePeriodSeconds=0)
    forced["metadata"] = {**SOURCE["metadata"], "annotations": {GRACE_ANNOTATION: "300"}}
    assert build_clone(forced, "web-2", full=False, start=True)["spec"]["terminationGracePeriodSeconds"] == 300


def test_a_machine_without_disks_networks_and_labels_can_be_cloned() -> None:
    bare = {"metadata": {"name": "a"}, "spec": {"memory": {"guest": "1Gi"}}}
    made = build_clone(bare, "b", full=False, start=None)
    assert made["metadata"] == {"name": "b", "namespace": "default"}
    assert made["spec"] == bare["spec"]


def test_a_machine_is_no_clone_of_itself() -> None:
    with pytest.raises(CliError, match="cannot be a clone of itself; choose another name than web-1"):
        check_names("web-1", "web-1")


def test_it_is_told_and_printed_as_kubectl_does() -> None:
    made = build_clone(SOURCE, "web-2", full=False, start=None)
    assert describe_created(made, "none") == "virtualmachine.virtfleet.io/web-2 created"
    assert describe_created(made, "client") == "virtualmachine.virtfleet.io/web-2 created (dry run)"
    assert describe_created(made, "server") == "virtualmachine.virtfleet.io/web-2 created (server dry run)"
    assert render(made, "name") == "virtualmachine.virtfleet.io/web-2"
    assert json.loads(render(made, "json")) == made
    assert yaml.safe_load(render(made, "yaml")) == made
    assert render(made, "yaml").startswith("apiVersion: ")
