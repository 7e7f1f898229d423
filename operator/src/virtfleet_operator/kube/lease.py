"""Leader election by a coordination.k8s.io Lease, and the epoch that goes with leading.

The epoch is the Lease's leaseTransitions. Unlike client-go, every acquisition raises it, also by a process of the same
identity: nodes refuse a lower epoch, so an instruction of an earlier life can never follow one of a later life.
Whether the holder still lives is judged by the time since its last renewal was *seen*, not by its clock.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from virtfleet_operator.kube.client import Body, KubeClient
from virtfleet_operator.kube.errors import ConflictError, KubeError, NotFoundError
from virtfleet_operator.kube.paths import LEASES

log: Final = logging.getLogger(__name__)

LEASE_NAME: Final = "virtfleet-operator"


class LeaseLostError(Exception):
    """This process leads no more and must end at once."""


class LeaseTimes(NamedTuple):
    """How long a leader may be silent, and how often it speaks."""

    duration_seconds: float
    renew_seconds: float


class Sighting(NamedTuple):
    """A version of the Lease and when (monotonic seconds) it was first seen."""

    version: str
    seen_at: float


def is_free(lease: Body, sighting: Sighting, now: float, identity: str) -> bool:
    """Say whether the Lease may be taken: released, ours from an earlier life, or not renewed for its duration."""
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    return holder in ("", identity) or now - sighting.seen_at >= float(spec.get("leaseDurationSeconds") or 0)


def next_epoch(lease: Body | None, now: datetime) -> int:
    """Return the epoch that whoever takes this Lease leads in.

    It is at least the minutes since 1970: a Lease that was deleted, or came back older from a backup of etcd, must not
    lead to an epoch that the nodes have seen exceeded. An int32 holds minutes for 4,000 years.
    """
    former = int(((lease or {}).get("spec") or {}).get("leaseTransitions") or 0)
    return max(former + 1, int(now.timestamp()) // 60)


@dataclass
class LeaderLease:
    """The Lease, tried for or held by this process."""

    client: KubeClient
    namespace: str
    identity: str
    times: LeaseTimes
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    epoch: int = 0
    held: Body | None = None
    renewed_at: float = 0.0
    doubt: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when somebody claims that another leads: the Lease itself then decides, at once."""
    trouble: str | None = "the lease has not been read yet"
    """What keeps this process from following the leader; None while it reads the Lease."""

    async def acquire(self) -> int:
        """Wait until this process leads; return its epoch."""
        sighting = Sighting("", 0.0)
        log.info("Waiting for the lease", extra={"action": "elect", "identity": self.identity})
        while True:
            try:
                lease = await self._read()
                self.trouble = None
                now = asyncio.get_running_loop().time()
                version = lease["metadata"]["resourceVersion"] if lease else ""
                sighting = sighting if sighting.version == version else Sighting(version, now)
                if lease is None or is_free(lease, sighting, now, self.identity):
                    await self._take(lease)
                    log.info("Leading", extra={"action": "elect", "identity": self.identity, "epoch": self.epoch})
                    return self.epoch
            except KubeError as error:
                # Somebody else was quicker, or the API server is away: both cure themselves.
                self.trouble = None if isinstance(error, ConflictError) else f"the lease cannot be had: {error}"
                log.info("Retrying the lease", extra={"action": "elect", "reason": str(error)})
            await asyncio.sleep(self.times.renew_seconds)

    async def keep(self) -> None:
        """Renew the Lease until cancelled.

        Raises:
            LeaseLostError: somebody else has taken it, or it could not be renewed in time.
        """
        while True:
            await self._pause()
            try:
                async with asyncio.timeout(self.left_seconds()):
                    await self._renew()
            except (KubeError, TimeoutError) as error:
                log.warning("Retrying to renew the lease", extra={"action": "renew", "reason": str(error)})
            if self.left_seconds() <= 0:
                raise LeaseLostError("The lease could not be renewed in time.")

    def left_seconds(self) -> float:
        """Return for how long this process may still act as the leader.

        One renewal interval less than others wait: they must not start before this one has ended.
        """
        margin = self.times.duration_seconds - self.times.renew_seconds
        return self.renewed_at + margin - asyncio.get_running_loop().time()

    async def release(self) -> None:
        """Give the Lease up, so that the next leader need not wait for it to expire."""
        if self.held is None:
            return
        try:
            await self._write({**self._spec(), "holderIdentity": "", "leaseDurationSeconds": 1})
        except KubeError as error:
            log.warning("Leaving the lease to expire", extra={"action": "release", "reason": str(error)})
        self.held = None

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.times.renew_seconds):
                await self.doubt.wait()
        self.doubt.clear()

    async def _renew(self) -> None:
        try:
            await self._write(self._spec())
        except (ConflictError, NotFoundError) as error:
            await self._confirm(error)

    async def _confirm(self, cause: KubeError) -> None:
        """Read again after a conflict: only the holder's own earlier, unanswered renewal may be the reason."""
        lease = await self._read()
        spec = (lease or {}).get("spec") or {}
        if lease is None or spec.get("holderIdentity") != self.identity or spec.get("leaseTransitions") != self.epoch:
            raise LeaseLostError(f"Another operator leads: {spec.get('holderIdentity')}") from cause
        self.held = lease

    async def _read(self) -> Body | None:
        try:
            return await self.client.get(LEASES.object(self.namespace, LEASE_NAME))
        except NotFoundError:
            return None

    async def _take(self, lease: Body | None) -> None:
        self.epoch = next_epoch(lease, self.clock())
        self.held = lease
        await self._write({**self._spec(), "acquireTime": self._timestamp()})

    async def _write(self, spec: dict[str, Any]) -> None:
        started = asyncio.get_running_loop().time()
        if self.held is None:
            metadata = {"name": LEASE_NAME, "namespace": self.namespace}
            body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
            self.held = await self.client.create(LEASES.collection(self.namespace), body)
        else:
            body = {**self.held, "spec": {**(self.held.get("spec") or {}), **spec}}
            self.held = await self.client.replace(LEASES.object(self.namespace, LEASE_NAME), body)
        self.renewed_at = started

    def _spec(self) -> dict[str, Any]:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": round(self.times.duration_seconds),
            "renewTime": self._timestamp(),
            "leaseTransitions": self.epoch,
        }

    def _timestamp(self) -> str:
        return self.clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
