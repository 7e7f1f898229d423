"""The one name of an address's object."""

from ipaddress import IPv4Address

from virtfleet_operator.core.network.topology import IpAddress


def address_name(switch: str, address: IpAddress) -> str:
    """Return the name of the VMAddress of an address, such as "tenant.10-1-0-7": one name, so one holder."""
    text = str(address) if isinstance(address, IPv4Address) else address.exploded
    return f"{switch}.{text.replace('.', '-').replace(':', '-')}"
