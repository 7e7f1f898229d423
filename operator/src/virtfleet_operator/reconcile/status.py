"""Writing status: the one conditional write, and the events that go with it."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime

from virtfleet_api.base import Model
from virtfleet_operator.core.events import EventText
from virtfleet_operator.core.writes import merge_patch
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.client import Body
from virtfleet_operator.kube.errors import NotFoundError
from virtfleet_operator.kube.paths import OUR_PATHS
from virtfleet_operator.reconcile.context import Context


async def write_status(
    context: Context, stored: Stored, status: Model, due: datetime | None, events: Iterable[EventText]
) -> float | None:
    """Write the status if it is due, else return after how many seconds it is.

    The resourceVersion makes the write conditional: what was decided about an older version is never written, so an
    operator that leads no more, but does not know it yet, changes nothing that its successor has written.

    Raises:
        ConflictError: the object has changed meanwhile; look again.
        KubeError: the API server did not take it.
    """
    if due is None:
        return None
    now = context.clock()
    if due > now:
        return (due - now).total_seconds()
    patch = merge_patch(stored.body.get("status") or {}, status.to_json_dict())
    await _patch(context, stored, "status", {"status": patch})
    context.written[stored.key] = now
    for text in events:
        context.events.post(stored, text)
    return None


async def write_metadata(context: Context, stored: Stored, change: Body) -> None:
    """Write finalizers or labels of virtfleet's own; conditional as `write_status`.

    Raises:
        ConflictError: the object has changed meanwhile; look again.
        KubeError: the API server did not take it.
    """
    await _patch(context, stored, "metadata", {"metadata": change})


async def write_spec(context: Context, stored: Stored, change: Body) -> None:
    """Write the spec of a kind that the operator alone writes; conditional as `write_status`.

    Raises:
        ConflictError: the object has changed meanwhile; look again.
        KubeError: the API server did not take it.
    """
    await _patch(context, stored, "spec", {"spec": change})


async def hold_finalizer(context: Context, stored: Stored, finalizer: str) -> Stored:
    """Make sure that an object which is not being deleted has a finalizer, and return it as it is then.

    Raises:
        ConflictError: the object has changed meanwhile; look again.
        KubeError: the API server did not take it.
    """
    if finalizer in stored.meta.finalizers or stored.meta.deletion_timestamp is not None:
        return stored
    await write_metadata(context, stored, {"finalizers": [*stored.meta.finalizers, finalizer]})
    return context.cache.get(stored.key) or stored


async def drop_finalizer(context: Context, stored: Stored, finalizer: str) -> None:
    """Remove a finalizer, which lets the API server delete the object.

    Raises:
        ConflictError: the object has changed meanwhile; look again.
        KubeError: the API server did not take it.
    """
    kept = [name for name in stored.meta.finalizers if name != finalizer]
    # Somebody may have removed the last finalizer by hand: the object is gone, as wanted.
    with suppress(NotFoundError):
        await write_metadata(context, stored, {"finalizers": kept})


async def _patch(context: Context, stored: Stored, part: str, change: Body) -> None:
    path = OUR_PATHS[stored.key.kind]
    where = path.status if part == "status" else path.object
    version = {"resourceVersion": stored.body["metadata"]["resourceVersion"]}
    body = {**change, "metadata": {**change.get("metadata", {}), **version}}
    answer = await context.client.patch(where(stored.key.namespace, stored.key.name), body)
    context.metrics.writes.labels(stored.key.kind, part).inc()
    if not is_gone(answer):
        context.cache.put(stored.key.kind, answer)


def is_gone(body: Body) -> bool:
    """Say whether a write made the API server delete the object: the answer is then its last version."""
    metadata = body["metadata"]
    return bool(metadata.get("deletionTimestamp")) and not metadata.get("finalizers")
