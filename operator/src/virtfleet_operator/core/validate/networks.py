"""Rules about the network cards of a machine."""

from collections import Counter
from collections.abc import Iterator

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.verdict import quote

_EXAMPLE = "52:54:00:12:34:56"


def network_problems(vm: VirtualMachine) -> Iterator[str]:
    """Check the network cards of a machine."""
    names: Counter[str] = Counter()
    macs: Counter[str] = Counter()
    for index, nic in enumerate(vm.spec.networks):
        where = f"spec.networks[{index}]"
        names[nic.name] += 1
        if names[nic.name] == 2:  # noqa: PLR2004  the second of a name is the one to rename
            yield f"{where}.name: {quote(nic.name)} is used twice: write a name that no other network card has"
        if nic.mac_address is not None:
            mac = nic.mac_address.lower()
            macs[mac] += 1
            yield from _mac_problems(f"{where}.macAddress", mac, macs[mac])


def _mac_problems(where: str, mac: str, seen: int) -> Iterator[str]:
    if seen == 2:  # noqa: PLR2004  the second of an address is the one to change
        yield f"{where}: '{mac}' is used twice: write another address, or leave it out to get one"
    if int(mac[:2], 16) & 1:
        yield f"{where}: '{mac}' is a multicast address: write one whose first byte is even, such as \"{_EXAMPLE}\""
    if mac == "00:00:00:00:00:00":
        yield f"{where}: '{mac}' is not an address of a card: write one such as \"{_EXAMPLE}\", or leave it out"
