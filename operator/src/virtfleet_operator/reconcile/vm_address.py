"""VMAddress: given back when its card is gone, deleted after the cool-down."""

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_address import VMAddress
from virtfleet_operator.core.network.addresses import Fate, has_port, judge, pick_held
from virtfleet_operator.core.network.cards import plugged, switched
from virtfleet_operator.core.validate.address import address_problems
from virtfleet_operator.kube.paths import OUR_PATHS, Key
from virtfleet_operator.reconcile.catalog import ADDRESS, MACHINE
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.ports import addresses_of
from virtfleet_operator.reconcile.status import write_spec


async def reconcile_address(context: Context, key: Key) -> float | None:
    """Bring an address one step closer to its end, unless its card still has it."""
    stored = context.cache.get(key)
    if stored is None or stored.meta.deletion_timestamp or not isinstance(stored.resource, VMAddress):
        return None
    if address_problems(stored.resource):
        return None  # made by hand: it stands for no address, and takes none away
    now = context.clock()
    judgement = judge(
        stored.resource, wanted=is_wanted(context, stored.resource), cool_down=context.address_cool_down, now=now
    )
    match judgement.fate:
        case Fate.RELEASE:
            await write_spec(context, stored, {"releasedAt": now.isoformat()})
        case Fate.DELETE:
            await context.client.delete(OUR_PATHS[ADDRESS].object("", key.name), version=str(stored.version))
        case Fate.WAIT:
            return judgement.after.total_seconds()
    return None


def is_wanted(context: Context, found: VMAddress) -> bool:
    """Tell whether the card still has the address: a machine that is unreadable keeps what it has."""
    for machine in context.cache.find(MACHINE, "uid", found.spec.holder.uid):
        vm = machine.resource
        if not isinstance(vm, VirtualMachine):
            return True
        return _has(context, vm, found)
    return False


def _has(context: Context, vm: VirtualMachine, found: VMAddress) -> bool:
    spec = found.spec
    named = any(nic.name == spec.holder.interface and name == spec.switch for _, nic, name in switched(vm))
    card = next((c for c in plugged(vm, context.catalog) if c.name == spec.holder.interface), None)
    if not named or card is None:
        return named  # a switch that is not valid now may be again
    held = pick_held(vm, card, addresses_of(context, vm.metadata.uid)) if has_port(vm, card) else ()
    return found.metadata.name in {one.metadata.name for one in held}
