"""VirtualMachine: validate, place, bind, compile, instruct, and write what the node reports.

The binding is durable before any node is instructed. A machine that is bound is never placed again.
"""

from dataclasses import dataclass
from typing import Final

from virtfleet_api.machine import Machine
from virtfleet_api.names import FINALIZER, NODE_LABEL
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.adoption import adoption_node, find_adoptions
from virtfleet_operator.core.binding import Binding, Bound, Lost, Restore, Unbound, binding
from virtfleet_operator.core.catalog import image_references
from virtfleet_operator.core.compile import compile_machine
from virtfleet_operator.core.devices import compile_devices, promised_devices
from virtfleet_operator.core.disk_sizes import disk_sizes
from virtfleet_operator.core.effective import Sizing, resolve
from virtfleet_operator.core.network.cards import plugged
from virtfleet_operator.core.place import Placed, load_of, need, place
from virtfleet_operator.core.secret import parse_secret, secret_reference
from virtfleet_operator.core.snapshot_disks import find_snapshot_disks, snapshot_disk_node
from virtfleet_operator.core.sources import find_sources, source_node
from virtfleet_operator.core.validate import check
from virtfleet_operator.core.verdict import Invalid, Unschedulable, Waiting
from virtfleet_operator.core.volumes import Claims
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError, StaleEpochError
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import IMAGE
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.growth import within_node
from virtfleet_operator.reconcile.hand_over import take_over
from virtfleet_operator.reconcile.image import hold_image
from virtfleet_operator.reconcile.machine_status import Verdict, write_machine
from virtfleet_operator.reconcile.ports import connect_cards, with_paths
from virtfleet_operator.reconcile.removal import remove_machine
from virtfleet_operator.reconcile.status import write_metadata
from virtfleet_operator.reconcile.supply import instruct_image
from virtfleet_operator.reconcile.volumes import find_claims, hold_volumes, release_when_off, with_reach

LOOK_AGAIN_SECONDS: Final = 10.0
"""Between looks for what a machine waits for and is not watched: Secrets and claims, see `kube.secrets`."""


@dataclass(frozen=True)
class Prepared:
    """A machine that could run now, if it has a node."""

    vm: VirtualMachine
    sizing: Sizing
    document: Machine
    claims: Claims


async def reconcile_machine(context: Context, key: Key) -> float | None:
    """Bring a machine one step closer to what its object says, and its status to what its node says."""
    context.unplaced.forget(key)
    stored = context.cache.get(key)
    if stored is None:
        context.passing.pop(key, None)
        return None
    where = find_binding(context, stored)
    if stored.meta.deletion_timestamp:
        return await remove_machine(context, stored, where)
    if isinstance(where, Restore) and _evident(context, stored):
        stored = await _bind(context, stored, where.node_name)
        where = Bound(where.node_name)
    if isinstance(where, Bound) and context.fleet.contact(where.node_name) is Contact.CONNECTING:
        return None  # the node's snapshot, or the end of patience, wakes this machine
    return await _advance(context, stored, where)


def find_binding(context: Context, stored: Stored) -> Binding:
    """Return where a machine is, from its object and from what the nodes report."""
    reporting = context.fleet.reporting(stored.uid)
    return binding(stored.meta, stored.status, reporting, fleet_complete=context.fleet_complete())


def _evident(context: Context, stored: Stored) -> bool:
    """Say whether more than a label, which anybody may have written, tells where the machine is."""
    return bool(stored.status.node_name or context.fleet.reporting(stored.uid))


async def _advance(context: Context, stored: Stored, where: Binding) -> float | None:
    prepared = await _prepare(context, stored)
    verdict: Verdict = None if isinstance(prepared, Prepared) else prepared
    if isinstance(where, Lost):
        verdict = Waiting("BindingLost", where.message)
    if isinstance(where, Unbound) and isinstance(prepared, Prepared):
        if context.unsettled():
            return None  # the nodes' snapshots wake this machine: placing now would crowd the quicker ones
        placed = await _place(context, stored, prepared)
        if isinstance(placed, Placed):
            # The answer to the binding is newer than the watch, which may even lack fields of a newer schema.
            return await _advance(context, context.cache.get(stored.key) or stored, Bound(placed.node_name))
        verdict = placed
    if isinstance(where, Bound):
        document: Machine | None = None
        if isinstance(prepared, Prepared):
            document, verdict = await _complete(context, stored, where.node_name, prepared)
        else:
            await release_when_off(context, stored, where.node_name)
        delay = await _instruct_and_write(context, stored, where.node_name, document, verdict)
    else:
        delay = await write_machine(context, stored, None, verdict)
    moving = isinstance(prepared, Prepared) and prepared.claims and isinstance(verdict, Unschedulable)
    if moving or (isinstance(verdict, Waiting) and not verdict.watched):
        return min(LOOK_AGAIN_SECONDS, delay or LOOK_AGAIN_SECONDS)
    return delay


async def _prepare(context: Context, stored: Stored) -> Prepared | Waiting | Invalid:
    vm = stored.resource
    if not isinstance(vm, VirtualMachine):
        return vm if isinstance(vm, Invalid) else Invalid(("the object is not a VirtualMachine",))
    if problem := check(vm, context.clock()):
        return problem
    sizing = resolve(vm, context.catalog.class_of(vm))
    if not isinstance(sizing, Sizing):
        return sizing
    reference = secret_reference(vm)
    secret = parse_secret(vm, await context.secrets.read(*reference) if reference else None)
    document = compile_machine(vm, sizing, context.catalog, secret)
    if not isinstance(document, Machine):
        return document
    claims = await find_claims(context, vm)
    return claims if isinstance(claims, Waiting) else Prepared(vm, sizing, document, claims)


async def _complete(
    context: Context, stored: Stored, node: str, prepared: Prepared
) -> tuple[Machine | None, Waiting | None]:
    """Return what a bound machine's node is told, None for nothing new, and why that is not all that is asked for."""
    document, pending = await hold_volumes(
        context, stored, node, _with_devices(context, prepared, node), prepared.claims
    )
    told, refused = within_node(context, stored, node, prepared.sizing, document)
    return told, refused or pending


def _with_devices(context: Context, prepared: Prepared, node: str) -> Machine:
    """Return the document with what its device classes are made of on its node."""
    devices = compile_devices(prepared.vm, context.rules_of(node))
    hardware = prepared.document.hardware.model_copy(update={"devices": devices})
    return prepared.document.model_copy(update={"hardware": hardware})


async def _place(context: Context, stored: Stored, prepared: Prepared) -> Placed | Unschedulable:
    vm, sizing, disks = prepared.vm, prepared.sizing, disk_sizes(prepared.vm, context.catalog)
    found = (context.catalog.image(*reference) for reference in image_references(vm))
    images = [image.metadata.uid for image in found if image is not None]
    asked = need(vm, sizing, disks, _pinned(vm, context), plugged(vm, context.catalog), images)
    if prepared.claims:
        asked = await with_reach(context, asked, prepared.claims, context.candidates())
    placed = place(asked, context.candidates(), context.surroundings(images))
    if isinstance(placed, Placed):
        promised = load_of(prepared.sizing, disks, promised_devices(prepared.vm))
        # No await between choosing and reserving: the next machine must see this one.
        with context.loads.reserve(stored.key, placed.node_name, promised, asked.itself):
            await _bind(context, stored, placed.node_name)
    else:
        context.unplaced.wait(stored.key, asked, placed.message)
    return placed


def _pinned(vm: VirtualMachine, context: Context) -> str | None:
    """Return the node that holds what the machine's disks are made from, if they are made from disks."""
    sources, adoptions = find_sources(vm, context.catalog), find_adoptions(vm, context.catalog)
    snapshots = find_snapshot_disks(vm, context.catalog)
    nodes = (
        None if isinstance(sources, Waiting | Invalid) else source_node(sources),
        None if isinstance(snapshots, Waiting | Invalid) else snapshot_disk_node(snapshots),
        None if isinstance(adoptions, Waiting | Invalid) else adoption_node(adoptions),
    )
    return next((node for node in nodes if node is not None), None)


async def _bind(context: Context, stored: Stored, node: str) -> Stored:
    """Make the binding durable: one write of finalizer and label."""
    finalizers = list(dict.fromkeys((*stored.meta.finalizers, FINALIZER)))
    await write_metadata(context, stored, {"finalizers": finalizers, "labels": {NODE_LABEL: node}})
    return context.cache.get(stored.key) or stored


async def _instruct_and_write(
    context: Context, stored: Stored, node: str, document: Machine | None, verdict: Verdict
) -> float | None:
    failure: NodeError | None = None
    try:
        if document and context.fleet.contact(node) is Contact.HEARD:
            verdict = await _instruct(context, stored, node, document) or verdict
    except StaleEpochError:
        raise
    except NodeRefusedError as error:
        verdict, failure = Waiting("Refused", str(error)), error
    except NodeError as error:
        failure = error
    delay = await write_machine(context, stored, node, verdict)
    if failure:
        raise failure  # the queue tries again, later and later
    return delay


async def _instruct(context: Context, stored: Stored, node: str, document: Machine) -> Waiting | Invalid | None:
    """Tell the node first about the images that the machine is made from, then about the machine.

    Before that the kept disks become the machine's, and its cards are plugged in; returned is what keeps them from it.
    """
    if isinstance(stored.resource, VirtualMachine):
        if obstacle := await take_over(context, stored.resource):
            return obstacle
        if obstacle := await connect_cards(context, stored.resource):
            return obstacle
        for namespace, name in image_references(stored.resource):
            image = context.catalog.image(namespace, name)
            held = context.cache.get(Key(IMAGE, namespace, name))
            if image and held:
                await hold_image(context, held)
                await instruct_image(context, node, image)
    await context.fleet.put_machine(node, with_paths(context, document))
    return None
