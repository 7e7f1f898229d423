"""VMImage: have the nodes that need it hold a copy, and let none be removed while a machine is made from it."""

from virtfleet_api.image import Image, ImageReport
from virtfleet_api.names import IMAGE_FINALIZER
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.core.events import image_events
from virtfleet_operator.core.images import compile_image, image_homes, remembered_copies
from virtfleet_operator.core.summarise import ImageFacts, summarise_image
from virtfleet_operator.core.writes import image_write_due
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import NODE, bound_node
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import drop_finalizer, write_metadata, write_status
from virtfleet_operator.reconcile.vm_class import problems_of


async def reconcile_image(context: Context, key: Key) -> float | None:
    """Instruct the nodes about an image and write its status."""
    stored = context.cache.get(key)
    if stored is None:
        return None
    problems = problems_of(context, stored)
    if stored.meta.deletion_timestamp:
        return await _remove(context, stored, problems)
    if isinstance(stored.resource, VMImage) and not problems:
        if context.unsettled():
            return None  # the nodes' snapshots, or the end of patience, wake this image
        stored = await _spread(context, stored, stored.resource)
    return await _write(context, stored, problems)


async def hold_image(context: Context, stored: Stored) -> Stored:
    """Make sure that an image cannot vanish before any node is told to fetch it; return its newest version."""
    if IMAGE_FINALIZER not in stored.meta.finalizers:
        await write_metadata(context, stored, {"finalizers": [*stored.meta.finalizers, IMAGE_FINALIZER]})
    return context.cache.get(stored.key) or stored


async def _spread(context: Context, stored: Stored, image: VMImage) -> Stored:
    homes = image_homes(image, _user_nodes(context, stored.key), _reports(context, stored), context.candidates())
    if homes:
        stored = await hold_image(context, stored)
    await _instruct(context, homes, compile_image(image))
    return stored


async def _instruct(context: Context, nodes: tuple[str, ...], document: Image) -> None:
    for node in nodes:
        if context.fleet.contact(node) is Contact.HEARD:
            await context.fleet.put_image(node, document)


async def _remove(context: Context, stored: Stored, problems: tuple[str, ...]) -> float | None:
    image = stored.resource
    if IMAGE_FINALIZER not in stored.meta.finalizers:
        return None
    if not isinstance(image, VMImage):
        return await _write(context, stored, problems)  # whoever wrote the spec must repair it first
    if context.catalog.image_users(stored.key.namespace, stored.key.name):
        return await _write(context, stored, problems)
    await _instruct(context, _holding(context, stored), compile_image(image, present=False))
    if _holding(context, stored) or _silent_holders(context, stored):
        return await _write(context, stored, problems)
    await drop_finalizer(context, stored, IMAGE_FINALIZER)
    return None


async def _write(context: Context, stored: Stored, problems: tuple[str, ...]) -> float | None:
    users = tuple(context.catalog.image_users(stored.key.namespace, stored.key.name))
    facts = ImageFacts(problems=problems, reports=_reports(context, stored), users=users)
    status = summarise_image(stored.meta, stored.status, facts, context.clock())
    due = image_write_due(stored.status, status, context.written.get(stored.key))
    return await write_status(context, stored, status, due, image_events(stored.status, status))


def _user_nodes(context: Context, key: Key) -> set[str]:
    return {node for user in context.catalog.image_machines(key) if (node := bound_node(user))}


def _reports(context: Context, stored: Stored) -> dict[str, ImageReport]:
    """Return what nodes say of their copies, and the copies of those that have said nothing yet."""
    said = {state.name: state.images[stored.uid] for state in context.fleet if stored.uid in state.images}
    heard = {state.name for state in context.fleet if state.instance}
    silent = {node.key.name for node in context.cache.all(NODE)} - heard
    return remembered_copies(stored.meta, stored.status, silent) | said


def _holding(context: Context, stored: Stored) -> tuple[str, ...]:
    return tuple(state.name for state in context.fleet if stored.uid in state.images)


def _silent_holders(context: Context, stored: Stored) -> set[str]:
    """Return the nodes that may hold a copy and cannot be asked now; one without VMNode has left the fleet."""
    listed = {node.name for node in stored.status.nodes}
    silent = set()
    for node in context.cache.all(NODE):
        contact = context.fleet.contact(node.key.name)
        if contact is Contact.CONNECTING or (contact is Contact.LOST and node.key.name in listed):
            silent.add(node.key.name)
    return silent
