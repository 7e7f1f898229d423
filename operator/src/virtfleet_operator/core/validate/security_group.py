"""Rules about security groups."""

from collections.abc import Iterator, Sequence
from ipaddress import ip_network

from virtfleet_api.resource import ObjectMeta
from virtfleet_api.security_group import Peer, Protocol, RulePort, SecurityGroup
from virtfleet_operator.core.validate.image import listed_users
from virtfleet_operator.core.verdict import quote


def group_problems(group: SecurityGroup) -> tuple[str, ...]:
    """Check a security group by itself."""
    return tuple(_problems(group))


def group_deletion_problems(group: ObjectMeta, users: Sequence[str]) -> tuple[str, ...]:
    """Say which machines, with cards in it, keep a group from being deleted.

    Rules of others that name it do not: they let nothing through by it then, and their groups say so.
    """
    if not users:
        return ()
    remedy = "delete these machines first, or take the group out of their cards"
    return (f"SecurityGroup {group.name} has members, {listed_users(users)}: {remedy}",)


def _problems(group: SecurityGroup) -> Iterator[str]:
    for index, ingress in enumerate(group.spec.ingress):
        where = f"spec.ingress[{index}]"
        for place, peer in enumerate(ingress.from_):
            yield from _peer_problems(f"{where}.from[{place}]", peer)
        for place, port in enumerate(ingress.ports):
            yield from _port_problems(f"{where}.ports[{place}]", port)
    for index, egress in enumerate(group.spec.egress or ()):
        where = f"spec.egress[{index}]"
        for place, peer in enumerate(egress.to):
            yield from _peer_problems(f"{where}.to[{place}]", peer)
        for place, port in enumerate(egress.ports):
            yield from _port_problems(f"{where}.ports[{place}]", port)


def _peer_problems(where: str, peer: Peer) -> Iterator[str]:
    if (peer.cidr is None) == (peer.security_group is None):
        said = "names both cidr and securityGroup" if peer.cidr else "names neither cidr nor securityGroup"
        yield f'{where}: {said}: write one, such as "cidr: 10.0.0.0/8" or "securityGroup: {{name: web}}"'
    if peer.cidr is None:
        if peer.except_:
            yield f"{where}.except: has no effect without cidr: remove it"
        return
    try:
        network = ip_network(peer.cidr)
    except ValueError:
        yield f'{where}.cidr: {quote(peer.cidr)} is no range of addresses: write one such as "10.0.0.0/8"'
        return
    for index, text in enumerate(peer.except_):
        try:
            part = ip_network(text)
        except ValueError:
            part = None
        if part is None or part.version != network.version or not part.subnet_of(network):  # type: ignore[arg-type]
            yield f"{where}.except[{index}]: {quote(text)} is no part of {network}: write a range inside it"


def _port_problems(where: str, port: RulePort) -> Iterator[str]:
    if port.protocol is Protocol.ICMP:
        if port.port is not None or port.end_port is not None:
            yield f"{where}.port: ICMP has none: write icmpType instead, or another protocol"
        if port.icmp_code is not None and port.icmp_type is None:
            yield f"{where}.icmpCode: means nothing without icmpType: write both"
        return
    if port.icmp_type is not None or port.icmp_code is not None:
        yield f"{where}.icmpType: belongs to ICMP: write protocol: ICMP, or port instead"
    if port.end_port is None:
        return
    if port.port is None:
        yield f"{where}.endPort: needs port, where the range begins: write both"
    elif port.end_port < port.port:
        yield f"{where}.endPort: {port.end_port} is below port {port.port}: write the higher one here"
