"""Remove what is left of a machine that libvirt does not know."""

import asyncio

from virtfleet_api.machine import Machine
from virtfleet_api.report import MachineReport
from virtfleet_node.agent.carry_out import carry_out
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.observe import observe
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.core.actions import ShortAction
from virtfleet_node.core.errors import UnavailableError
from virtfleet_node.core.guest_facts import GuestFacts
from virtfleet_node.core.plan import plan
from virtfleet_node.core.report import build_report


async def sweep(around: Surroundings, machine: Machine) -> MachineReport | None:
    """Remove it, and say what was kept; None, and nothing done, when it takes longer than an answer may.

    Raises:
        UnavailableError: libvirt has come to know the machine.
    """
    entry = Entry(machine.without_secrets())
    observed = await observe(around, machine.uid, entry)
    if observed.domain.stored is not None:
        raise UnavailableError("The machine is being taken up; ask again.")
    actions = plan(entry.desired, observed, around.now()).actions
    short = [action for action in actions if isinstance(action, ShortAction)]
    if len(short) < len(actions):
        return None
    for action in short:
        await carry_out(around, entry, entry.desired, action)
    await asyncio.to_thread(around.disks.remove_leftovers, machine.uid)
    await asyncio.to_thread(around.media.remove, machine.uid)
    observed = await observe(around, machine.uid, entry)
    return build_report(entry.desired, observed, GuestFacts(), around.now())
