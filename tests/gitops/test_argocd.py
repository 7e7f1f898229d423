"""Argo CD's way with the examples: client-side apply and a label on all that it made; the cluster is what Git says."""

from typing import TYPE_CHECKING

import pytest

from gitops_tools import EXAMPLES, INSTANCE, of_ours, ours, writers_of_spec

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_examples_are_synced_and_show_no_difference(lab: "Lab") -> None:
    lab.repository.commit("All examples", dict(EXAMPLES))
    argo = lab.argo
    argo.sync()
    wanted = argo.wanted()
    assert {one["kind"] for one in wanted} >= {"VirtualMachine", "VMImage", "VMClass", "VirtualSwitch", "VMRestore"}
    await lab.settle(wanted)
    await lab.fleet.wait_word("quickstart", "Running")
    assert argo.diff() == ""
    # What the operator makes is not Argo CD's: it would be pruned.
    assert sorted(argo.tracked()) == sorted((ours(one["kind"]), one["metadata"]["name"]) for one in wanted)


async def test_the_operator_manages_no_field_of_a_spec(lab: "Lab") -> None:
    for one in of_ours(lab.argo.wanted()):
        found = await lab.fleet.get(one["kind"], one["metadata"]["name"])
        assert found
        assert writers_of_spec(found) == {"kubectl-client-side-apply"}, one


async def test_what_somebody_changes_by_hand_is_found_and_healed(lab: "Lab") -> None:
    argo = lab.argo
    patch = '{"spec": {"memory": {"guest": "192Mi"}, "runStrategy": "Halted"}}'
    lab.kubectl.run("patch", "vm", "quickstart", "--type=merge", "-p", patch)
    # runStrategy is not in Git, so that it is whoever's wrote it: that is how a 3-way merge works.
    drift = argo.diff()
    assert "-    guest: 192Mi" in drift
    assert "+    guest: 256Mi" in drift
    argo.sync()
    assert argo.diff() == ""
    found = await lab.read("VirtualMachine", "quickstart")
    assert found
    assert found["spec"]["memory"]["guest"] == "256Mi"
    lab.kubectl.run("patch", "vm", "quickstart", "--type=json", "-p", '[{"op": "remove", "path": "/spec/runStrategy"}]')


async def test_a_commit_changes_a_machine(lab: "Lab") -> None:
    argo = lab.argo
    before = await lab.read("VirtualMachine", "quickstart")
    assert before
    lab.repository.commit("More memory", {"quickstart.yaml": EXAMPLES["quickstart.yaml"].replace("256Mi", "224Mi")})
    assert "+    guest: 224Mi" in argo.diff()
    argo.sync()
    await lab.settle([before])
    after = await lab.read("VirtualMachine", "quickstart")
    assert after
    assert after["metadata"]["generation"] > before["metadata"]["generation"]
    assert after["metadata"]["labels"][INSTANCE] == "fleet"
    assert argo.diff() == ""


async def test_what_leaves_git_is_pruned_and_finalizers_end(lab: "Lab") -> None:
    argo = lab.argo
    lab.repository.commit("One less", {"quickstart.yaml": None})
    before = argo.tracked()
    argo.sync()
    await lab.gone([(ours("VirtualMachine"), "quickstart"), (ours("VMImage"), "quickstart")])
    assert len(argo.tracked()) == len(before) - 2
    lab.repository.commit("Nothing", {name: None for name in EXAMPLES if name != "quickstart.yaml"})
    argo.sync()
    await lab.gone([one for one in before if not one[1].endswith("quickstart")])
    # A snapshot of a schedule goes with its machine.
    await lab.eventually(lambda: lab.kubectl.list(ours("VMSnapshot")) == [], "no snapshot is left")
