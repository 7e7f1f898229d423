"""Rules about the objects of addresses, which the operator alone makes."""

from ipaddress import ip_address

from virtfleet_api.vm_address import VMAddress
from virtfleet_operator.core.network.address_name import address_name


def address_problems(found: VMAddress, old: VMAddress | None = None) -> tuple[str, ...]:
    """Check a VMAddress: its name must say which address it is."""
    if old is not None and (found.spec.switch, found.spec.address) != (old.spec.switch, old.spec.address):
        return ("spec: switch and address cannot change: write what they were",)
    try:
        name = address_name(found.spec.switch, ip_address(found.spec.address))
    except ValueError:
        return (
            f"spec.address: {found.spec.address!r} is no address: delete this object, the operator makes them itself",
        )
    if found.metadata.name != name:
        return (
            f'metadata.name: must be "{name}" for this address: delete this object, the operator makes them itself',
        )
    return ()
