"""Security groups as tests write them."""

from typing import Any

from virtfleet_api.security_group import SecurityGroupSpec
from virtfleet_operator.core.network.topology import GroupPlan


def group(name: str, namespace: str = "default", peers: tuple[str, ...] = (), **spec: Any) -> GroupPlan:
    """Return a group; `peers` are "namespace/name" of groups it may name."""
    found = {(space, peer): uid(space, peer) for space, peer in (text.split("/") for text in peers)}
    return GroupPlan(uid(namespace, name), namespace, name, SecurityGroupSpec.model_validate(spec), found)


def uid(namespace: str, name: str) -> str:
    return f"{name}-of-{namespace}"


def rule(*ports: str, **rest: Any) -> dict[str, Any]:
    """Return a rule; ports are such as "TCP/80", "TCP/8000-8010" or "ICMP"."""
    return {"ports": [_port(text) for text in ports], **rest}


def _port(text: str) -> dict[str, Any]:
    protocol, _, numbers = text.partition("/")
    first, _, last = numbers.partition("-")
    found: dict[str, Any] = {"protocol": protocol}
    if protocol == "ICMP" and first:
        return {**found, "icmpType": int(first)}
    return {**found, **({"port": int(first)} if first else {}), **({"endPort": int(last)} if last else {})}


def of(name: str, namespace: str | None = None) -> dict[str, Any]:
    return {"securityGroup": {"name": name, **({"namespace": namespace} if namespace else {})}}
