"""Admission: refuse a bad manifest with a sentence that says what to write.

The handlers only translate between kopf and `core.admission`. They fail open: when they break or are away, the object
is stored, and the operator says the same sentence in the condition Ready.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import kopf

from virtfleet_api.kinds import KINDS
from virtfleet_api.names import GROUP, VERSION
from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_api.vm_node import VMNode
from virtfleet_api.vm_snapshot import VMSnapshot
from virtfleet_operator.core.admission import Review, review_deletion, review_write
from virtfleet_operator.core.catalog import Catalog

logger = logging.getLogger(__name__)

_UNPROCESSABLE: Final = 422  # as the API server answers a manifest that its schema refuses
_CONFLICT: Final = 409  # the object is in use; the same request may succeed later


def register(registry: kopf.OperatorRegistry, catalog: Callable[[], Catalog], clock: Callable[[], datetime]) -> None:
    """Register the validating webhooks of all kinds; the catalog is asked for at each request."""

    def validate_write(body: kopf.Body, warnings: list[str], **given: Any) -> None:
        old = dict(given["old"]) if given["old"] else None
        _answer(_review(lambda: review_write(dict(body), old, catalog(), clock())), warnings, _UNPROCESSABLE)

    def validate_deletion(body: kopf.Body, warnings: list[str], **_: Any) -> None:
        _answer(_review(lambda: review_deletion(dict(body), catalog())), warnings, _CONFLICT)

    options: dict[str, Any] = {"registry": registry, "ignore_failures": True, "side_effects": False}
    for kind in KINDS:
        kopf.on.validate(
            GROUP, VERSION, kind.plural, id=f"{kind.plural}-write", operations=["CREATE", "UPDATE"], **options
        )(validate_write)
    for kind in (VMImage, VMNode, VMDisk, VirtualSwitch, SecurityGroup, VMSnapshot):
        kopf.on.validate(GROUP, VERSION, kind.plural, id=f"{kind.plural}-delete", operations=["DELETE"], **options)(
            validate_deletion
        )


def _review(review: Callable[[], Review]) -> Review:
    """Review; a defect of ours must not keep users from their objects."""
    try:
        return review()
    except Exception:
        logger.exception("passing a request unreviewed", extra={"action": "admission", "reason": "ReviewFailed"})
        return Review()


def _answer(review: Review, warnings: list[str], code: int) -> None:
    if review.refusal is not None:
        raise kopf.AdmissionError(review.refusal.message, code=code)
    warnings.extend(review.warnings)
