"""The status of a VMImage: one word over the copies of all nodes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from virtfleet_api.conditions import ConditionType
from virtfleet_api.image import ImageReport
from virtfleet_api.resource import ObjectMeta
from virtfleet_api.vm_image import ImagePhase, NodeImageStatus, VMImageStatus
from virtfleet_operator.core.copies import unused_copies
from virtfleet_operator.core.images import pinned_checksum
from virtfleet_operator.core.summarise.bounds import count_of, size_of
from virtfleet_operator.core.summarise.conditions import NO, YES, Saying, Says, conditions
from virtfleet_operator.core.verdict import Waiting, join_problems, plain

MAX_USERS: Final = 100
"""Machines named in a status; with more, the list is a sample and the webhook still knows them all."""

_ORDER: Final = (ImagePhase.READY, ImagePhase.IMPORTING, ImagePhase.PENDING, ImagePhase.FAILED)
"""The best copy is the word for the image: one that is ready serves, one that failed may be tried elsewhere."""


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is decided about an image, and what the nodes say."""

    problems: Sequence[str] = ()
    reports: Mapping[str, ImageReport] = field(default_factory=dict)
    """By node name, also of nodes that are not heard just now: a copy does not go away with a connection."""
    users: Sequence[str] = ()
    """Machines whose spec names the image, as namespace/name."""
    user_nodes: Collection[str] = ()
    """Nodes of these machines."""
    waiting: Waiting | None = None
    """What an import needs that is not there."""
    made_once: bool = False
    """The image is never made anew: its checksum is kept when no copy is left."""


def summarise_image(meta: ObjectMeta, old: VMImageStatus, facts: ImageFacts, now: datetime) -> VMImageStatus:
    """Return the status of an image."""
    best = _best(facts)
    unused = unused_copies(old, facts.user_nodes, facts.reports, now)
    phase = ImagePhase.FAILED if facts.problems else best.phase if best else ImagePhase.PENDING
    ready = Says(ConditionType.READY, *_ready(meta, facts, best), meta.generation)
    return VMImageStatus(
        observed_generation=meta.generation,
        phase=phase,
        progress=_progress(phase, best),
        format=best.format.value if best and best.format else None,
        virtual_size=size_of(best.virtual_size_bytes) if best else None,
        actual_size=size_of(best.actual_size_bytes) if best else None,
        checksum=(facts.made_once and old.checksum) or pinned_checksum(old.checksum, facts.reports),
        nodes=tuple(
            NodeImageStatus(name=name, phase=report.phase, unused_since=unused.get(name))
            for name, report in sorted(facts.reports.items())
        ),
        users=tuple(sorted(facts.users)[:MAX_USERS]),
        user_count=count_of(len(facts.users)),
        conditions=conditions(old.conditions, now, [ready], failed=_is_lost(meta, phase)),
    )


def _is_lost(meta: ObjectMeta, phase: ImagePhase) -> bool:
    return phase is ImagePhase.FAILED and meta.deletion_timestamp is None


def _best(facts: ImageFacts) -> ImageReport | None:
    """Return the copy that has come furthest; of equal ones, that of the first node by name."""
    ranked = sorted(
        facts.reports.items(),
        key=lambda item: (_ORDER.index(item[1].phase), -(item[1].progress_percent or 0), item[0]),
    )
    return ranked[0][1] if ranked else None


def _ready(meta: ObjectMeta, facts: ImageFacts, best: ImageReport | None) -> Saying:
    if meta.deletion_timestamp is not None:
        return NO, "Terminating", _terminating(facts)
    if facts.problems:
        return NO, "Invalid", join_problems(facts.problems)
    if facts.waiting and (best is None or best.phase is not ImagePhase.READY):
        return NO, facts.waiting.reason, facts.waiting.message
    if best is None:
        return NO, "Pending", "No node holds a copy yet."
    return _copied(facts, best)


def _copied(facts: ImageFacts, best: ImageReport) -> Saying:
    """Say how far the best copy is."""
    match best.phase:
        case ImagePhase.READY:
            return YES, "Ready", _holders(facts)
        case ImagePhase.FAILED:
            return NO, *_failed(facts)
        case ImagePhase.IMPORTING:
            return NO, "Importing", "A node imports the image."
        case ImagePhase.PENDING:
            return NO, "Pending", plain(best.message) or "A node is about to import the image."


def _terminating(facts: ImageFacts) -> str:
    if facts.users:
        return f"The image is removed once no machine uses it; {len(facts.users)} still do."
    return "The nodes remove their copies."


def _holders(facts: ImageFacts) -> str:
    ready = sum(report.phase == ImagePhase.READY for report in facts.reports.values())
    failed = [name for name, report in sorted(facts.reports.items()) if report.phase == ImagePhase.FAILED]
    if not failed:
        return "The image can be used."
    return f"{ready} of {len(facts.reports)} nodes hold the image; node {failed[0]}: " + plain(
        facts.reports[failed[0]].message
    )


def _failed(facts: ImageFacts) -> tuple[str, str]:
    """Repeat the words of the first node by name."""
    name, report = min(facts.reports.items())
    reason = report.reason if report.reason.isascii() and report.reason.isalnum() else "ImportFailed"
    return reason[:64], f"Node {name}: {plain(report.message) or 'the import failed'}"


def _progress(phase: ImagePhase, best: ImageReport | None) -> str | None:
    if phase == ImagePhase.READY:
        return "100%"
    percent = best.progress_percent if best and phase == ImagePhase.IMPORTING else None
    return None if percent is None else f"{percent}%"
