"""The configuration files of the operator and of the node daemons of a one-machine cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from virtfleet_dev.fabric import Fabric
from virtfleet_dev.node import Node
from virtfleet_dev.ovn import NORTHBOUND_PORT, SOUTHBOUND_PORT

OPERATOR_NAMESPACE = "virtfleet-system"
OPERATOR_USER = "virtfleet-operator"
NODE_PORT = 8444
ENROLMENT_PORT = 8443
_METRICS_PORT = 9100


@dataclass(frozen=True)
class Ports:
    """Where one operator process listens on loopback."""

    webhook: int
    subresources: int
    metrics: int


def operator_configuration(fabric: Fabric, identity: str, kubeconfig: Path, ports: Ports) -> dict[str, Any]:
    """Return the configuration of an operator outside the cluster."""
    return {
        "kubeconfig": str(kubeconfig),
        "namespace": OPERATOR_NAMESPACE,
        "identity": identity,
        "enrolment": {"host": fabric.host_address, "port": ENROLMENT_PORT, "names": [fabric.host_address]},
        "webhook": {"enabled": True, "host": "127.0.0.1", "port": ports.webhook},
        "subresources": {"host": "127.0.0.1", "port": ports.subresources, "externalName": "localhost"},
        "metrics": {"host": "127.0.0.1", "port": ports.metrics},
        "ovn": {
            "northbound": f"ssl:{fabric.host_address}:{NORTHBOUND_PORT}",
            "southbound": f"ssl:{fabric.host_address}:{SOUTHBOUND_PORT}",
        },
        "network": {"operatorAddresses": [fabric.host_address], "addressCoolDownSeconds": 60},
        # Shorter than the defaults (10 s, 3 s): a killed operator is followed sooner, for one write each 2 s.
        "lease": {"durationSeconds": 6, "renewSeconds": 2},
    }


def node_configuration(node: Node, libvirt_uri: str) -> dict[str, Any]:
    """Return the configuration of a node's daemon, with paths as the node sees them."""
    return {
        "nodeName": node.name,
        "listen": {"host": node.address, "port": NODE_PORT},
        "advertise": f"{node.address}:{NODE_PORT}",
        "libvirtUri": libvirt_uri,
        "stateDirectory": "/var/lib/virtfleet",
        "pools": [{"name": "default", "path": "/var/lib/virtfleet/pools/default"}],
        "labels": {"kubernetes.io/hostname": node.name},
        "enrolment": {
            "url": f"https://{node.fabric.host_address}:{ENROLMENT_PORT}",
            "tokenFile": "/var/lib/virtfleet/join-token",
            "caFile": "/var/lib/virtfleet/ca.crt",
        },
        "metrics": {"host": node.address, "port": _METRICS_PORT},
    }
