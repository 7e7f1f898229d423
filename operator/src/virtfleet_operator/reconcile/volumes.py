"""The PersistentVolumeClaims of a machine: looked up, held by pods on its node, and let go when it is off."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import MachineReport
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.compile import run_of
from virtfleet_operator.core.holder import Holder, holder_body, is_ending, is_ours
from virtfleet_operator.core.place import Candidate, Need
from virtfleet_operator.core.placement.volumes import reaches, required_terms
from virtfleet_operator.core.verdict import Waiting, plain
from virtfleet_operator.core.volumes import (
    LETS_GO_AFTER,
    Claims,
    build_holders,
    claim_not_found,
    foreign,
    has_let_go,
    pending,
    plan_holders,
    refused,
    shall_hold,
    volume_disks,
    volumes_disabled,
    with_volumes,
)
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.client import Body
from virtfleet_operator.kube.errors import ConflictError, InvalidError, NotFoundError, RefusedError
from virtfleet_operator.kube.paths import PODS
from virtfleet_operator.reconcile.context import Context, Volumes

LOOK_AGAIN_SECONDS: Final = 10.0
"""Between looks at a pod that is to be deleted later."""


async def find_claims(context: Context, vm: VirtualMachine) -> Claims | Waiting:
    """Return the claims that are a machine's disks; one that shall be off waits for none.

    Raises:
        KubeError: the API server does not give them.
    """
    found = {}
    for index, disk, name in volume_disks(vm):
        if context.volumes is None:
            return volumes_disabled(vm) or {}
        claim = await context.volumes.claims.claim(vm.metadata.namespace, name, _pods(context.volumes, vm).values())
        if claim is not None:
            found[disk.name] = claim
        elif run_of(vm) is not Run.STOPPED:
            return claim_not_found(index, name)
    return found


async def with_reach(context: Context, asked: Need, claims: Claims, candidates: Collection[Candidate]) -> Need:
    """Return what a machine asks for with the nodes that its volumes cannot be reached from.

    Raises:
        KubeError: the API server does not say where the volumes are.
    """
    unreachable = {}
    for claim in claims.values() if context.volumes else ():
        volume = await context.volumes.claims.volume(claim.volume) if context.volumes and claim.volume else None
        terms = required_terms(volume) if volume else ()
        if terms and context.volumes:
            labels = await context.volumes.claims.node_labels([node.name for node in candidates if not node.unready])
            known = {node.name: labels.get(node.name, node.labels) for node in candidates if not node.unready}
            unreachable[claim.name] = frozenset(name for name in known if not reaches(terms, name, known[name]))
    return replace(asked, unreachable=unreachable)


async def hold_volumes(
    context: Context, stored: Stored, node: str, document: Machine, claims: Claims
) -> tuple[Machine, Waiting | None]:
    """Have a bound machine's claims held on its node or let go; return what its node is told, and what is waited for.

    Raises:
        KubeError: the API server did not take a change of the pods.
    """
    vm, volumes = stored.resource, context.volumes
    if volumes is None or not isinstance(vm, VirtualMachine):
        return document, None
    wanted, found = build_holders(vm, claims, node), _pods(volumes, vm)
    if not found and next(volume_disks(vm), None) is None:
        return document, None
    hold = _shall_hold(context, stored, vm, node)
    if hold is False:
        await _delete(context, found.values())
        return with_volumes(document, claims, (), {}), None
    obstacle = await _keep(context, stored, vm, wanted, _report(context, stored, node)) if hold else None
    if run_of(vm) is not Run.STOPPED:
        obstacle = obstacle or pending(vm, claims, wanted, found)
    return with_volumes(document, claims, wanted, found), obstacle


async def release_when_off(context: Context, stored: Stored, node: str) -> None:
    """Let the claims of a machine go that is off, though nobody knows now what it should be.

    Raises:
        KubeError: the API server did not take a change of the pods.
    """
    vm = stored.resource
    if isinstance(vm, VirtualMachine) and _shall_hold(context, stored, vm, node) is False:
        await release_volumes(context, stored)


async def release_volumes(context: Context, stored: Stored) -> None:
    """Let all claims of a machine go.

    Raises:
        KubeError: the API server did not take a change of the pods.
    """
    if context.volumes is not None:
        await _delete(context, context.volumes.pods.of(stored.key.namespace, stored.uid).values())


def _pods(volumes: Volumes, vm: VirtualMachine) -> Mapping[str, Body]:
    return volumes.pods.of(vm.metadata.namespace, vm.metadata.uid)


def _shall_hold(context: Context, stored: Stored, vm: VirtualMachine, node: str) -> bool | None:
    heard = context.fleet.contact(node) is Contact.HEARD
    return shall_hold(run_of(vm), vm.metadata.generation, _report(context, stored, node), heard=heard)


def _report(context: Context, stored: Stored, node: str) -> MachineReport | None:
    state = context.fleet.node(node)
    return state.machines.get(stored.uid) if state else None


async def _keep(
    context: Context, stored: Stored, vm: VirtualMachine, wanted: Sequence[Holder], report: MachineReport | None
) -> Waiting | None:
    """Create and delete pods as planned; say which of them cannot be made."""
    if context.volumes is None:
        return None
    found, image = _pods(context.volumes, vm), context.volumes.image
    plan = plan_holders(wanted, found, image, context.clock())
    surplus = [found[name] for name in plan.surplus]
    kept = [pod for pod in surplus if not _is_let_go(context.volumes, pod, vm, report, context.clock())]
    if plan.look_again or kept:
        context.volumes.look_later(stored.key, LOOK_AGAIN_SECONDS)
    await _delete(context, [*(found[name] for name in plan.delete), *(pod for pod in surplus if pod not in kept)])
    obstacles = [await _create(context, vm, holder, image) for holder in plan.create]
    return next((obstacle for obstacle in obstacles if obstacle), None)


def _is_let_go(volumes: Volumes, pod: Body, vm: VirtualMachine, report: MachineReport | None, now: datetime) -> bool:
    """Tell whether the guest does not use any more what a pod holds that is not wanted."""
    uid = pod["metadata"]["uid"]
    since = volumes.surplus.setdefault(uid, now)
    if since + LETS_GO_AFTER > now or not has_let_go(vm.metadata.generation, report):
        return False
    del volumes.surplus[uid]
    return True


async def _create(context: Context, vm: VirtualMachine, holder: Holder, image: str) -> Waiting | None:
    """Create a pod, unless it is there and only has not been seen yet; say why it cannot be made."""
    namespace = vm.metadata.namespace
    index = next(index for index, disk, _ in volume_disks(vm) if disk.name == holder.disk)
    try:
        await context.client.create(PODS.collection(namespace), holder_body(holder, image))
    except ConflictError:
        there = await context.client.get(PODS.object(namespace, holder.name))
        return None if is_ours(there, holder) else foreign(index, holder)
    except (RefusedError, InvalidError) as error:
        return refused(index, holder, plain(str(error)))
    return None


async def _delete(context: Context, pods: Collection[Body]) -> None:
    for pod in pods:
        if not is_ending(pod):
            metadata = pod["metadata"]
            with suppress(NotFoundError):
                path = PODS.object(metadata["namespace"], metadata["name"])
                await context.client.delete(path, version=metadata["resourceVersion"])
