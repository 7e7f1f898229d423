"""One machine, brought closer to what is desired: observe, plan, carry out, and again until there is nothing to do."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

from virtfleet_api.machine import Machine, Run
from virtfleet_api.report import ACTION_FAILED, MachineReport, Phase
from virtfleet_node.agent.carry_out import carry_out
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.give_devices import hold_devices
from virtfleet_node.agent.observe import observe
from virtfleet_node.agent.surroundings import Surroundings
from virtfleet_node.agent.works import Works
from virtfleet_node.core.actions import Action, CloneDisks, LongAction, ShortAction, WriteRecord
from virtfleet_node.core.errors import NodeError, PoolFullError, UnavailableError
from virtfleet_node.core.observed import DomainState, Observed, ObservedDomain
from virtfleet_node.core.plan import plan
from virtfleet_node.core.record import new_stored
from virtfleet_node.core.report import Standing, build_report, with_steady_disks, with_steady_memory

_LOG = logging.getLogger(__name__)

ROUNDS: Final = 8
"""Plans carried out before others get their turn; a start needs two, a deletion three."""


class Reconciler:
    """Reconciles machines; holds nothing of its own."""

    def __init__(self, around: Surroundings, works: Works, watch_guest: Callable[[str, bool], None]) -> None:
        self._around = around
        self._works = works
        self._watch_guest = watch_guest

    async def reconcile(self, uid: str, entry: Entry) -> datetime | None:
        """Bring the machine closer to its document; return when to look again (now, if there is more to do).

        Raises:
            NodeError: an action failed; the report says so.
        """
        for _ in range(ROUNDS):
            desired = entry.desired
            observed = await self._observe(uid, entry)
            if entry.desired is not desired:
                continue  # what was seen belongs to what was asked for before
            wanted = plan(desired, observed, self._around.now())
            if await self._works.settle(entry, wanted.actions):
                entry.trouble = None
                continue  # what was seen is no longer so
            rest = wanted.actions
            if rest and isinstance(rest[0], WriteRecord):
                await self._carry_out(entry, observed, rest[0])
                rest = rest[1:]
            self.publish(entry, observed)  # only now: what has been told must be known after a crash, too
            if not wanted.actions:
                return wanted.wake_at
            for action in rest:
                await self._carry_out(entry, observed, action)
            if wanted.wake_at is not None or any(isinstance(action, LongAction) for action in rest):
                return wanted.wake_at  # a long action wakes the machine when it gets on
        return self._around.now()

    def publish(self, entry: Entry, observed: Observed) -> MachineReport:
        """Publish the machine's report, and have its guest agent asked while there is one."""
        built = build_report(entry.desired, observed, entry.facts, self._around.now(), entry.trouble)
        steady = with_steady_memory(built, entry.report, entry.desired.hardware.memory_bytes)
        report = entry.report = with_steady_disks(steady, entry.report)
        self._around.journal.publish_machine(report)
        self._watch_guest(entry.desired.uid, report.agent_connected)
        return report

    async def _observe(self, uid: str, entry: Entry) -> Observed:
        """Look, after putting back a document that someone else has taken out of libvirt."""
        observed = await observe(self._around, uid, entry)
        # Here alone: nobody else looks while this machine's devices are chosen and kept.
        hold_devices(self._around, entry.desired, observed.domain)
        if observed.domain.stored is not None or entry.desired.run is Run.ABSENT:
            return observed
        _LOG.warning("Keeping the document of a machine again, which libvirt had lost", extra={"uid": uid})
        async with entry.lock:
            await keep_new(self._around, entry.desired, observed.domain)
        return await observe(self._around, uid, entry)

    async def _carry_out(self, entry: Entry, observed: Observed, action: Action) -> None:
        if isinstance(action, LongAction):
            self._further(entry, observed, action)
        else:
            await self._carry_out_now(entry, observed, action)

    async def _carry_out_now(self, entry: Entry, observed: Observed, action: ShortAction) -> None:
        desired = entry.desired
        names = {"machine": f"{desired.namespace}/{desired.name}", "uid": desired.uid, "action": str(action)}
        _LOG.info("Executing an action", extra=names)
        try:
            await carry_out(self._around, entry, desired, action)
        except UnavailableError:
            raise
        except NodeError as error:
            entry.trouble = _trouble(desired, error)
            self.publish(entry, observed)
            raise
        entry.trouble = None

    def _further(self, entry: Entry, observed: Observed, action: LongAction) -> None:
        try:
            if self._works.further(entry, action):
                entry.trouble = None
        except NodeError as error:
            if isinstance(action, CloneDisks):
                entry.trouble = (Phase.PROVISIONING, "CloneFailed", str(error))
                self.publish(entry, observed)
            raise


def _trouble(desired: Machine, error: NodeError) -> Standing:
    """Return how a machine stands whose plan could not be carried out; one that waits for room has not failed."""
    if desired.run is Run.ABSENT:
        return Phase.STOPPING, ACTION_FAILED, str(error)
    if isinstance(error, PoolFullError):
        return Phase.PROVISIONING, "PoolFull", str(error)
    return Phase.FAILED, ACTION_FAILED, str(error)


async def keep_new(around: Surroundings, desired: Machine, domain: ObservedDomain) -> None:
    """Keep the document of a machine that libvirt holds none of; durable when this returns."""
    stored = new_stored(desired)
    if domain.state is DomainState.ABSENT or not domain.persistent:
        await around.hypervisor.define_placeholder(stored, around.facts.domain_type)
    else:
        await around.hypervisor.write_stored(stored)
