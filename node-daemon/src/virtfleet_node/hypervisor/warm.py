"""Start a guest with the memory of a save image. Everything here blocks."""

import base64
import json
import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

import libvirt
import libvirt_qemu

from virtfleet_api.network import LinkState
from virtfleet_node.core.actions import SetLink
from virtfleet_node.hypervisor.calls import AGENT_SECONDS
from virtfleet_node.hypervisor.execute import set_link

_LOG = logging.getLogger(__name__)

_NANOSECONDS: Final = 1000
_MACHINE_ID: Final = "/etc/machine-id"
_LONGEST_ANSWER: Final = 1000
"""Characters of an agent's answer that are read; a number needs fewer."""

_SILENT: Final = frozenset({libvirt.VIR_ERR_AGENT_UNRESPONSIVE, libvirt.VIR_ERR_AGENT_UNSYNCED})
"""What libvirt says of an agent that has not answered, perhaps because it was in the middle of something else."""


@dataclass(frozen=True)
class WarmStart:
    """What a guest is started with."""

    uid: str
    image: Path
    definition: str
    """Defined before, with what is kept of the machine."""
    description: str | None
    """Takes the place of the one in the image; None for an image that has been given its own."""
    pulled: tuple[str, ...]
    """libvirt's names of the cards whose cables are pulled before the guest goes on."""


def start(connect: libvirt.virConnect, wanted: WarmStart) -> None:
    """Start the guest, and leave it paused; a guest that runs already is refused.

    Links are set once the memory is loaded: a card's own state, which is part of it, brings its link back up.
    """
    connect.defineXML(wanted.definition)
    connect.restoreFlags(str(wanted.image), wanted.description, libvirt.VIR_DOMAIN_SAVE_PAUSED)
    domain = connect.lookupByUUIDString(wanted.uid)
    for alias in wanted.pulled:
        set_link(domain, SetLink(alias, LinkState.DOWN))


def set_clock(connect: libvirt.virConnect, uid: str, now: datetime) -> bool:
    """Have the agent set the guest's clock; False when it says that it cannot.

    Raises:
        libvirt.libvirtError: it does not answer.
    """
    domain = connect.lookupByUUIDString(uid)
    domain.agentSetResponseTimeout(AGENT_SECONDS)
    moment = {"seconds": int(now.timestamp()), "nseconds": now.microsecond * _NANOSECONDS}
    try:
        domain.setTime(moment)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _SILENT or not domain.isActive():
            raise
        _LOG.warning("Leaving a guest's clock as it is", extra={"uid": uid, "reason": str(error)})
        return False
    return True


def set_machine_id(connect: libvirt.virConnect, uid: str) -> str:
    """Have the agent write the guest's UUID as its machine-id; return why it does not, in its own words.

    Raises:
        libvirt.libvirtError: it does not answer.
    """
    domain = connect.lookupByUUIDString(uid)
    content = base64.b64encode(f"{UUID(uid).hex}\n".encode()).decode()
    try:
        handle = _read_handle(_ask(domain, "guest-file-open", path=_MACHINE_ID, mode="w"))
        try:
            _ask(domain, "guest-file-write", handle=handle, **{"buf-b64": content})
        finally:
            _ask(domain, "guest-file-close", handle=handle)
    except libvirt.libvirtError as error:
        if error.get_error_code() in _SILENT or not domain.isActive():
            raise
        why = str(error)
    except ValueError as error:
        why = str(error)
    else:
        return ""
    _LOG.warning("Leaving a guest's machine-id as it is", extra={"uid": uid, "reason": why})
    return why


def _ask(domain: libvirt.virDomain, command: str, **arguments: object) -> str:
    asked = json.dumps({"execute": command, "arguments": arguments})
    return str(libvirt_qemu.qemuAgentCommand(domain, asked, AGENT_SECONDS, 0))


def _read_handle(answer: str) -> int:
    """Return the number of an opened file; the guest may answer what it likes: ValueError."""
    try:
        return int(json.loads(answer[:_LONGEST_ANSWER])["return"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its agent does not answer with the number of a file") from None
