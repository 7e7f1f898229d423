"""The storage pools that the operator asks a node to have beside those of its configuration file."""

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Document
from virtfleet_api.machine import Label

OVERCOMMIT_PATTERN: Final = r"^[1-9][0-9]{0,2}(\.[0-9]{1,2})?$"
WATERMARK_PATTERN: Final = r"^([1-9][0-9]?|100)%$"
DEFAULT_WATERMARK: Final = "90%"

POOL_PATH_PATTERN: Final = r"^(/[A-Za-z0-9_][A-Za-z0-9_.-]*)+$"
"""An absolute path without `..`, doubled slashes, or anything that libvirt or a shell would read otherwise."""


class PoolType(StrEnum):
    """What a pool is.

    DIRECTORY belongs to this node alone. SHARED is one directory that several nodes see under the same path.
    """

    DIRECTORY = "Directory"
    SHARED = "Shared"


class Pool(Document):
    """A pool: a directory on the node under the name that machines and images use."""

    name: Label
    type: PoolType = PoolType.DIRECTORY
    path: Annotated[str, Field(pattern=POOL_PATH_PATTERN, max_length=255)]
    overcommit: Annotated[str | None, Field(pattern=OVERCOMMIT_PATTERN)] = None
    """Virtual disk sizes that may be promised, per size of the pool; None for any."""
    watermark: Annotated[str, Field(pattern=WATERMARK_PATTERN)] = DEFAULT_WATERMARK
    """Share in use from which the pool takes no new disks and images."""


class PoolSet(Document):
    """All the pools that the node shall have beside those of its configuration file."""

    items: tuple[Pool, ...] = ()


def commit_limit(capacity_bytes: int, overcommit: str | None) -> int | None:
    """Return the virtual bytes that may be promised on a pool of this size; None for any number."""
    return None if overcommit is None else int(capacity_bytes * Decimal(overcommit))
