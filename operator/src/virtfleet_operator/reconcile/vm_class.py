"""VMClass: say whether its sizes can be served."""

from virtfleet_api.resource import Resource
from virtfleet_operator.core.summarise import summarise_class
from virtfleet_operator.core.validate import check
from virtfleet_operator.core.verdict import Invalid
from virtfleet_operator.kube.cache import Stored
from virtfleet_operator.kube.paths import Key
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.status import write_status


def problems_of(context: Context, stored: Stored) -> tuple[str, ...]:
    """Return what is wrong with an object, whether it parses or not."""
    resource: Resource | Invalid = stored.resource
    verdict = resource if isinstance(resource, Invalid) else check(resource, context.clock())
    return verdict.problems if verdict else ()


async def reconcile_class(context: Context, key: Key) -> float | None:
    """Write the status of a VMClass."""
    stored = context.cache.get(key)
    if stored is None or stored.meta.deletion_timestamp:
        return None
    now = context.clock()
    status = summarise_class(stored.meta, stored.status, problems_of(context, stored), now)
    due = None if status == stored.status else now
    return await write_status(context, stored, status, due, ())
