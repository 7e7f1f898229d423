"""What was taken from the host for machines: <state directory>/devices.json, written before anything is taken.

libvirt gives a PCI device back when its guest ends, and forgets to when it is killed at the wrong moment; mediated
devices it never removes. So what is in this file and no machine holds is given back. Nothing else is decided by it.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from virtfleet_api.base import Document
from virtfleet_node.storage.files import write_whole

_LOG = logging.getLogger(__name__)


class Taken(Document):
    """What was taken."""

    devices: Annotated[frozenset[str], Field(max_length=4096)] = frozenset()
    """PCI addresses."""
    mediated: Annotated[frozenset[str], Field(max_length=4096)] = frozenset()
    """UUIDs of devices that were made."""


class TakenDevices:
    """The file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._taken = _read(file)

    @property
    def now(self) -> Taken:
        """Return what is in it."""
        return self._taken

    def add(self, devices: Iterable[str], mediated: Iterable[str]) -> None:
        """Remember what is about to be taken; durable when this returns. Blocks."""
        self._write(self._taken.devices.union(devices), self._taken.mediated.union(mediated))

    def forget(self, devices: Iterable[str], mediated: Iterable[str]) -> None:
        """Forget what has been given back. Blocks."""
        self._write(self._taken.devices.difference(devices), self._taken.mediated.difference(mediated))

    def _write(self, devices: frozenset[str], mediated: frozenset[str]) -> None:
        taken = Taken(devices=devices, mediated=mediated)
        if taken != self._taken:
            write_whole(self._file, taken.model_dump_json().encode())
            self._taken = taken


def _read(file: Path) -> Taken:
    try:
        return Taken.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return Taken()
    except ValidationError:
        _LOG.exception("Forgetting which devices were taken: the file cannot be read", extra={"file": str(file)})
        return Taken()
