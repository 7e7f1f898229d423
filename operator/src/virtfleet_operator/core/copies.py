"""Which nodes shall hold a copy of an image, and which copies nobody needs any more.

A copy goes when no machine of its node has used the image for some time, and another copy stays that can be reached:
the last one of the fleet is kept for the next machine. What nodes share is one copy, which does not go.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from virtfleet_api.image import ImageReport
from virtfleet_api.vm_image import ImagePhase, VMImage, VMImageStatus
from virtfleet_operator.core.image_origins import is_copied
from virtfleet_operator.core.place import Candidate


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Nodes that shall hold the image, nodes that shall remove it, and when to think again."""

    hold: tuple[str, ...]
    drop: tuple[str, ...] = ()
    again_at: datetime | None = None


def plan_copies(
    image: VMImage,
    user_nodes: Collection[str],
    reports: Mapping[str, ImageReport],
    nodes: Iterable[Candidate],
    keep_unused: timedelta,
    now: datetime,
) -> CopyPlan:
    """Plan the copies of an image.

    An image that nobody uses yet is imported by one node, so that it is known to be good before it is needed; which
    one follows from its UID, so that many images spread. Another takes its place when that node is lost.
    One that is a copy of a disk is made by the node that has the disk, which is named among its users until then.
    """
    rooms = {n.name: room for n in nodes if not n.unready and (room := n.pools.get(image.spec.pool)) is not None}
    able = {name for name, room in rooms.items() if not room.nearly_full}
    homes = {*user_nodes, *reports}
    anywhere = not is_copied(image.spec.source)
    if anywhere and not (homes & able) and not any(r.phase is ImagePhase.READY for r in reports.values()):
        homes |= set(_ranked(image, able)[:1])
    ends = {name: since + keep_unused for name, since in unused_copies(image.status, user_nodes, reports, now).items()}
    idle = {name for name, end in ends.items() if end <= now and name in rooms and not rooms[name].shared}
    drop = _droppable(image, idle, homes & rooms.keys(), reports)
    later = [end for name, end in ends.items() if end > now] if len(reports) > 1 else []
    return CopyPlan(tuple(sorted(homes - drop)), tuple(sorted(drop)), min(later, default=None))


def unused_copies(
    status: VMImageStatus, user_nodes: Collection[str], copies: Iterable[str], now: datetime
) -> dict[str, datetime]:
    """Return since when each copy is of no use to its node, by node; those that are used are left out."""
    before = {node.name: node.unused_since for node in status.nodes}
    return {name: before.get(name) or now.replace(microsecond=0) for name in copies if name not in user_nodes}


def choose_taker(uid: str, reports: Mapping[str, ImageReport]) -> str | None:
    """Return the node that takes an upload: the one that has most of it, or one that follows from the image's UID."""
    if not reports:
        return None
    return min(reports, key=lambda name: (-(reports[name].file_size_bytes or 0), _rank(uid, name)))


def _droppable(
    image: VMImage, idle: Collection[str], reachable: Collection[str], reports: Mapping[str, ImageReport]
) -> set[str]:
    """Return which idle copies may go so that a good one stays that can be reached."""
    good = {name for name, report in reports.items() if report.phase is ImagePhase.READY} & set(reachable)
    if not good:
        return set()
    stays = next(iter(_ranked(image, good - set(idle)) or _ranked(image, good)))
    return set(idle) - {stays}


def _ranked(image: VMImage, names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: _rank(image.metadata.uid, name))


def _rank(uid: str, name: str) -> bytes:
    return hashlib.sha256(f"{uid}/{name}".encode()).digest()
