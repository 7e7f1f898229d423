"""Flux' way with the examples: server-side apply by a manager of its own, an inventory, and health by kstatus."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gitops_tools import EXAMPLES, Flux, Manifest, Reference, of_ours, ours, writers_of_spec
from kstatus import Health, kstatus

if TYPE_CHECKING:
    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

SHOP = ("classes.yaml", "quickstart.yaml", "vm-snapshot.yaml", "network.yaml")
"""What becomes ready on a node that only says so, without waiting for a minute of a schedule."""


@pytest.fixture(scope="module")
def flux(lab: "Lab") -> Flux:
    return lab.flux


async def current(lab: "Lab", one: Manifest) -> None:
    """Wait until kstatus calls it done."""

    async def so() -> bool:
        found = await lab.fleet.get(one["kind"], one["metadata"]["name"])
        return bool(found) and kstatus(found) is Health.CURRENT

    await lab.fleet.eventually(so, f"{one['kind']} {one['metadata']['name']} is current")


async def test_a_commit_becomes_a_fleet_that_is_current_and_shows_no_difference(lab: "Lab", flux: Flux) -> None:
    central = await lab.start_ovn()
    try:
        lab.repository.commit("A shop", {name: EXAMPLES[name] for name in SHOP})
        flux.reconcile()
        wanted = of_ours(flux.wanted())
        for one in wanted:
            await current(lab, one)
        assert flux.diff() == ""
        assert flux.reconcile() == ""
        for one in wanted:
            found = await lab.fleet.get(one["kind"], one["metadata"]["name"])
            assert found
            # An empty spec has no manager, and Kubernetes 1.20 says then that somebody wrote it before.
            assert writers_of_spec(found) <= {Flux.MANAGER, "before-first-apply"}, one
    finally:
        central.down()


async def test_every_example_is_applied_without_a_difference(lab: "Lab", flux: Flux) -> None:
    lab.repository.commit("All examples", dict(EXAMPLES))
    flux.reconcile()
    await lab.settle(flux.wanted())
    assert flux.diff() == ""


async def test_what_somebody_changes_by_hand_is_taken_back(lab: "Lab", flux: Flux) -> None:
    patch = '{"spec": {"memory": {"guest": "192Mi"}}}'
    lab.kubectl.run("patch", "vm", "quickstart", "--type=merge", "-p", patch)
    assert "-    guest: 192Mi\n+    guest: 256Mi" in flux.reconcile()
    found = await lab.read("VirtualMachine", "quickstart")
    assert found
    assert found["spec"]["memory"]["guest"] == "256Mi"
    await current(lab, found)
    assert flux.reconcile() == ""


async def test_a_change_in_git_is_in_progress_until_the_node_has_it(lab: "Lab", flux: Flux) -> None:
    node = lab.fleet.nodes["node-a"]
    await node.stop()
    lab.repository.commit("More memory", {"quickstart.yaml": EXAMPLES["quickstart.yaml"].replace("256Mi", "224Mi")})
    flux.reconcile()
    found = await lab.fleet.get("VirtualMachine", "quickstart")
    assert found
    await node.start()
    assert kstatus(found) is Health.IN_PROGRESS
    await current(lab, found)
    assert flux.diff() == ""


async def test_what_leaves_git_is_pruned_and_finalizers_end(lab: "Lab", flux: Flux) -> None:
    lab.repository.commit("One less", {"quickstart.yaml": None})
    before = list(flux.inventory)
    flux.reconcile()
    await lab.gone([(ours("VirtualMachine"), "quickstart"), (ours("VMImage"), "quickstart")])
    lab.repository.commit("Nothing", {name: None for name in EXAMPLES if name != "quickstart.yaml"})
    flux.reconcile()
    await lab.gone(before)


async def test_kubectl_prunes_by_itself_with_an_applyset(lab: "Lab", monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "KUBECTL_APPLYSET", "true")
    folder = lab.repository.clone(lab.folder / "applyset")
    words = ("apply", "--server-side", "--force-conflicts", "--prune", "--applyset=fleet", "-f", str(folder))
    there: dict[str, list[Reference]] = {}
    for name in ("quickstart.yaml", "kernel-boot.yaml"):
        lab.repository.commit("Another", {name: EXAMPLES[name], **dict.fromkeys(there)})
        lab.repository.clone(folder)
        lab.kubectl.run("-n", "default", *words)
        for references in there.values():
            await lab.gone(references)
        written = replace(lab.flux, folder=folder).wanted()
        there = {name: [(ours(one["kind"]), one["metadata"]["name"]) for one in written]}
        await lab.settle(written)
    lab.kubectl.run("-n", "default", "delete", "secret", "fleet")
    lab.flux.prune(there["kernel-boot.yaml"])
    await lab.gone(there["kernel-boot.yaml"])
