"""libvirt's errors end here: what leaves this package is a NodeError."""

from typing import Final

import libvirt

from virtfleet_node.core.errors import ConflictError, NodeError, NotFoundError, UnavailableError

_GONE: Final = frozenset({libvirt.VIR_ERR_NO_DOMAIN})

_LOST: Final = frozenset(
    {
        libvirt.VIR_ERR_NO_CONNECT,
        libvirt.VIR_ERR_INVALID_CONN,
        libvirt.VIR_ERR_RPC,
        libvirt.VIR_ERR_SYSTEM_ERROR,
    }
)
_LOST_TEXTS: Final = ("client socket is closed", "End of file while reading", "Connection reset", "Broken pipe")


def convert(error: libvirt.libvirtError) -> NodeError:
    """Return the error in our words."""
    text = str(error.get_error_message() or error)
    if error.get_error_code() in _GONE:
        return NotFoundError(text)
    if is_lost(error):
        return UnavailableError(f"libvirtd does not answer: {text}")
    return ConflictError(text)


def is_lost(error: libvirt.libvirtError) -> bool:
    """Tell whether the connection to libvirtd is gone, rather than one call refused."""
    remote = error.get_error_domain() in {libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_REMOTE}
    text = str(error)
    lost = error.get_error_code() in _LOST and remote
    return lost or error.get_error_code() == libvirt.VIR_ERR_INVALID_CONN or any(part in text for part in _LOST_TEXTS)
