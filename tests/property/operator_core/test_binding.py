"""Whatever is done to labels and finalizers, a machine is never taken for unbound while a node has it."""

from hypothesis import given
from hypothesis import strategies as st

from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.virtual_machine_status import VirtualMachineStatus
from virtfleet_operator.core.binding import Bound, Lost, Restore, Unbound, binding

NODES = ("node-a", "node-b", "node-c")
reported = st.frozensets(st.sampled_from(NODES))
written = st.none() | st.sampled_from(NODES)


@given(st.from_type(ObjectMeta), written, reported, st.booleans())
def test_only_a_machine_that_nobody_knows_is_unbound(
    meta: ObjectMeta,
    node_name: str | None,
    reported_by: frozenset[str],
    complete: bool,  # noqa: FBT001  drawn by hypothesis
) -> None:
    answer = binding(meta, VirtualMachineStatus(node_name=node_name), reported_by, fleet_complete=complete)
    label = meta.labels.get(NODE_LABEL)
    known = {label, node_name, *reported_by} - {None}
    match answer:
        case Unbound():
            assert not known
            assert complete or FINALIZER not in meta.finalizers
        case Lost():
            assert not known
            assert FINALIZER in meta.finalizers
            assert not complete
        case Bound(node_name=node):
            assert node == label
        case Restore(node_name=node):
            assert node in known
            assert node != label or FINALIZER not in meta.finalizers


@given(st.from_type(ObjectMeta), st.booleans(), st.booleans(), st.sampled_from(NODES))
def test_meddling_with_metadata_moves_no_machine(
    meddled: ObjectMeta,
    status_written: bool,  # noqa: FBT001  drawn by hypothesis
    complete: bool,  # noqa: FBT001  drawn by hypothesis
    node: str,
) -> None:
    status = VirtualMachineStatus(node_name=node if status_written else None)
    answer = binding(meddled, status, {node}, fleet_complete=complete)
    assert isinstance(answer, Bound | Restore)
    assert answer.node_name == node


@given(st.from_type(ObjectMeta), st.sampled_from(NODES))
def test_a_node_that_is_not_heard_keeps_its_machines(meta: ObjectMeta, node: str) -> None:
    bound = meta.model_copy(update={"labels": {NODE_LABEL: node}, "finalizers": (FINALIZER,)})
    assert binding(bound, VirtualMachineStatus(), (), fleet_complete=False) == Bound(node)
