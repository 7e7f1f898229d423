"""VMImage: have the nodes that need it hold a copy, and let none be removed while a machine is made from it."""

import logging
from dataclasses import dataclass
from typing import Final

from virtfleet_api.image import Image, ImageReport
from virtfleet_api.names import IMAGE_FINALIZER
from virtfleet_api.vm_image import VMImage
from virtfleet_operator.core.copies import plan_copies
from virtfleet_operator.core.events import image_events
from virtfleet_operator.core.image_origins import Origin, is_copied
from virtfleet_operator.core.images import compile_image, remembered_copies
from virtfleet_operator.core.summarise import ImageFacts, summarise_image
from virtfleet_operator.core.verdict import Waiting
from virtfleet_operator.core.writes import image_write_due
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError, StaleEpochError
from virtfleet_operator.fleet.state import Contact
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.catalog import NODE, bound_node
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import drop_finalizer, write_metadata, write_status
from virtfleet_operator.reconcile.supply import find_origin, instruct_image
from virtfleet_operator.reconcile.vm_class import problems_of

log: Final = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS: Final = 10.0
"""Between looks for a Secret that an import waits for: Secrets are not watched, see `kube.secrets`."""

REFUSED_AGAIN_SECONDS: Final = 3600.0
"""Between attempts to remove a copy that disks without a machine, which were kept, are still backed by."""


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
        spread = await _spread(context, stored, stored.resource)
        delay = await _write(context, spread.stored, problems, spread.waiting)
        if spread.failure:
            raise spread.failure  # the queue tries again, later and later
        return min((seconds for seconds in (spread.again_seconds, delay) if seconds is not None), default=None)
    return await _write(context, stored, problems)


async def hold_image(context: Context, stored: Stored) -> Stored:
    """Make sure that an image cannot vanish before any node is told to fetch it; return its newest version."""
    if IMAGE_FINALIZER not in stored.meta.finalizers:
        await write_metadata(context, stored, {"finalizers": [*stored.meta.finalizers, IMAGE_FINALIZER]})
    return context.cache.get(stored.key) or stored


@dataclass(frozen=True)
class _Spread:
    """What became of telling the nodes."""

    stored: Stored
    waiting: Waiting | None = None
    again_seconds: float | None = None
    failure: NodeError | None = None
    """Of the first node that did not acknowledge."""


async def _spread(context: Context, stored: Stored, image: VMImage) -> _Spread:
    """Tell the nodes what to hold and what to remove; one that fails does not keep the others from it."""
    now = context.clock()
    reports, users = _reports(context, stored), _user_nodes(context, stored.key)
    origin = find_origin(context, image)
    users |= {origin.node_name} if isinstance(origin, Origin) else set()
    plan = plan_copies(image, users, reports, context.candidates(), context.keep_unused_images, now)
    if plan.hold:
        stored = await hold_image(context, stored)
    heard = [node for node in plan.hold if context.fleet.contact(node) is Contact.HEARD]
    answers = [await _tell(context, node, image) for node in heard]
    refused = [await _drop(context, node, image) for node in plan.drop]
    waiting = next((answer for answer in answers if isinstance(answer, Waiting)), None)
    failure = next((answer for answer in answers if isinstance(answer, NodeError)), None)
    if isinstance(failure, NodeRefusedError):
        waiting = Waiting("Refused", str(failure))
    again = [(plan.again_at - now).total_seconds()] if plan.again_at else []
    again += [REFUSED_AGAIN_SECONDS] if any(refused) else []
    again += [LOOK_AGAIN_SECONDS] if waiting else []
    waiting = waiting or (origin if isinstance(origin, Waiting) else None)
    return _Spread(stored, waiting, min(again, default=None), failure)


async def _tell(context: Context, node: str, image: VMImage) -> Waiting | NodeError | None:
    try:
        return await instruct_image(context, node, image)
    except StaleEpochError:
        raise
    except NodeError as error:
        return error


async def _drop(context: Context, node: str, image: VMImage) -> bool:
    """Have a node remove a copy that nobody needs; True when it refuses, because files of its own still need it."""
    extra = {"image": str(image.key), "uid": image.metadata.uid, "node": node, "action": "drop"}
    log.info("Removing a copy that no machine of the node uses", extra=extra)
    try:
        await context.fleet.put_image(node, compile_image(image, present=False))
    except StaleEpochError:
        raise
    except NodeRefusedError as error:
        log.info("The copy stays", extra={**extra, "reason": str(error)})
        return True
    return False


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


async def _write(
    context: Context, stored: Stored, problems: tuple[str, ...], waiting: Waiting | None = None
) -> float | None:
    facts = ImageFacts(
        problems=problems,
        reports=_reports(context, stored),
        users=tuple(context.catalog.image_users(stored.key.namespace, stored.key.name)),
        user_nodes=_user_nodes(context, stored.key),
        waiting=waiting,
        made_once=isinstance(stored.resource, VMImage) and is_copied(stored.resource.spec.source),
    )
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
