"""The pods that hold claims converge whatever happens to them, and node selectors mean what Kubernetes' mean."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.machine import VolumeMode
from virtfleet_api.names import DNS_LABEL_PATTERN
from virtfleet_api.resource import ObjectMeta
from virtfleet_operator.core.holder import Holder, holder_body, is_holding, is_ours
from virtfleet_operator.core.placement.volumes import reaches
from virtfleet_operator.core.volumes import HolderPlan, plan_holders

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
IMAGE = "registry.example/holder:1"

words = st.from_regex(DNS_LABEL_PATTERN, fullmatch=True).map(lambda word: word[:63].strip("-"))
names = st.lists(words, min_size=1, max_size=4).map(".".join).map(lambda name: name[:253].strip("-."))
uids = st.uuids().map(str)
metas = st.builds(lambda name, uid: ObjectMeta(name=name, namespace="shop", uid=uid, generation=1), names, uids)
holders = st.builds(Holder, metas, words, names, st.sampled_from(VolumeMode), names)


@given(holders)
def test_a_name_is_one_that_a_pod_can_have(holder: Holder) -> None:
    assert len(holder.name) <= 63
    assert re.fullmatch(DNS_LABEL_PATTERN, holder.name)
    assert holder.name == Holder(holder.machine, holder.disk, holder.claim, holder.mode, holder.node_name).name


def told(holder: Holder) -> tuple[str, ...]:
    return holder.machine.uid, holder.disk, holder.claim, holder.mode, holder.node_name


@given(st.lists(holders, min_size=2, max_size=2, unique_by=told))
def test_pods_that_differ_have_names_that_do(pair: list[Holder]) -> None:
    assert pair[0].name != pair[1].name


@given(holders, holders)
def test_a_pod_is_the_holder_of_its_own_claim_alone(one: Holder, other: Holder) -> None:
    assert is_ours(holder_body(one, IMAGE), one)
    same = (one.machine.uid, one.claim) == (other.machine.uid, other.claim)
    assert is_ours(holder_body(one, IMAGE), other) is same


class Cluster:
    """A namespace as small as it can be: what is asked for is done, and the kubelet does something."""

    def __init__(self) -> None:
        self.pods: dict[str, dict[str, Any]] = {}
        self.now = NOW

    def create(self, holder: Holder) -> None:
        assert holder.name not in self.pods
        pod = holder_body(holder, IMAGE)
        pod["metadata"]["creationTimestamp"] = self.now.isoformat()
        self.pods[holder.name] = {**pod, "status": {"phase": "Pending"}}

    def step(self, wanted: list[Holder]) -> bool:
        """Do as planned; say whether anything was to be done."""
        plan = plan_holders(wanted, self.pods, IMAGE, self.now)
        for name in (*plan.delete, *plan.surplus):
            del self.pods[name]
        for holder in plan.create:
            self.create(holder)
        self.now += timedelta(seconds=10)
        return plan != HolderPlan()

    def run(self) -> None:
        """Have every pod run that has not ended."""
        for pod in self.pods.values():
            if pod["status"]["phase"] == "Pending":
                status = {"phase": "Running", "containerStatuses": [{"name": "holder", "ready": True}]}
                pod["status"] = status


happenings = st.sampled_from(["run", "fail", "delete", "step"])


@given(
    st.lists(holders, max_size=3, unique_by=lambda holder: holder.name),
    st.lists(holders, max_size=3, unique_by=lambda holder: holder.name),
    st.lists(happenings, max_size=8),
)
def test_the_pods_that_shall_be_come_and_stay(before: list[Holder], wanted: list[Holder], events: list[str]) -> None:
    cluster = Cluster()
    cluster.step(before)
    for event in events:
        match event:
            case "run":
                cluster.run()
            case "fail":
                for pod in cluster.pods.values():
                    pod["status"] = {"phase": "Failed"}
            case "delete":
                cluster.pods.clear()
            case _:
                cluster.step(wanted)
    while cluster.step(wanted):
        pass
    cluster.run()
    assert not cluster.step(wanted)
    assert cluster.pods.keys() == {holder.name for holder in wanted}
    assert all(is_holding(pod) for pod in cluster.pods.values())


keys = st.sampled_from(["zone", "disks", "kubernetes.io/hostname"])
values = st.sampled_from(["a", "b", "7", "-7", "+7", "12", "1.5", "", "9" * 30])
labels = st.dictionaries(keys, values)
operators = st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt", "Like"])
requirements = st.fixed_dictionaries({"key": keys, "operator": operators, "values": st.lists(values, max_size=2)})


def holds(requirement: dict[str, Any], found: dict[str, str]) -> bool:
    """Say it again in the words of Kubernetes' documentation."""
    key, wanted = requirement["key"], requirement["values"]
    number, limit = whole(found.get(key, "")), whole(wanted[0]) if len(wanted) == 1 else None
    comparable = number is not None and limit is not None
    answers = {
        "In": key in found and found[key] in wanted,
        "NotIn": not (key in found and found[key] in wanted),
        "Exists": key in found,
        "DoesNotExist": key not in found,
        "Gt": comparable and (number or 0) > (limit or 0),
        "Lt": comparable and (number or 0) < (limit or 0),
    }
    return answers.get(requirement["operator"], False)


def whole(text: str) -> int | None:
    return int(text) if text.removeprefix("-").removeprefix("+").isdigit() and len(text) < 20 else None


@given(requirements, labels)
def test_a_requirement_means_what_kubernetes_says(requirement: dict[str, Any], found: dict[str, str]) -> None:
    assert reaches([{"matchExpressions": [requirement]}], "node-a", found) is holds(requirement, found)


@given(st.lists(st.lists(requirements, max_size=3), max_size=3), labels)
def test_one_term_is_enough_and_all_of_it_must_hold(terms: list[list[dict[str, Any]]], found: dict[str, str]) -> None:
    wanted = any(term and all(holds(one, found) for one in term) for term in terms)
    assert reaches([{"matchExpressions": term} for term in terms], "node-a", found) is wanted


@given(names, names)
def test_a_field_names_the_node(name: str, other: str) -> None:
    field = {"key": "metadata.name", "operator": "In", "values": [name]}
    assert reaches([{"matchFields": [field]}], name, {})
    assert reaches([{"matchFields": [field]}], other, {}) is (name == other)
