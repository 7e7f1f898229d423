"""What a host name may mean when a download is for a tenant: not this hypervisor itself, nor its link.

A name is under its owner's control, who may let it lead to services that trust whoever is on the host (loopback) or
to a cloud's metadata service (link-local). The addresses that are checked are the ones that are connected to.
"""

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver


class GuardedResolver(AbstractResolver):
    """Resolves like the system, and refuses what leads to the host itself."""

    def __init__(self) -> None:
        self._system = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name; OSError when one of them is this host's own or its link's."""
        found = await self._system.resolve(host, port, family)
        if any(is_own(result["host"]) for result in found):
            raise OSError(None, f"{host} leads to the hypervisor itself or to its link")
        return found

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


def is_own(address: str) -> bool:
    """Tell whether an address means the host itself or its link; False for what is no address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    ip = getattr(found, "ipv4_mapped", None) or found
    return ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast
