"""Every name that virtfleet writes into other systems, in one place. They are the API: renaming one is a migration."""

from typing import Final

GROUP: Final = "virtfleet.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

SUBRESOURCES_GROUP: Final = f"subresources.{GROUP}"
SUBRESOURCES_API_VERSION: Final = f"{SUBRESOURCES_GROUP}/{VERSION}"

FINALIZER: Final = f"{GROUP}/machine"
"""Held on a VirtualMachine from its binding until its node has removed it."""

IMAGE_FINALIZER: Final = f"{GROUP}/image"
"""Held on a VMImage while a node holds a copy or a machine is backed by it."""

DISK_FINALIZER: Final = f"{GROUP}/disk"
"""Held on a VMDisk until its node has removed the file, or a machine has taken it over."""

SNAPSHOT_FINALIZER: Final = f"{GROUP}/snapshot"
"""Held on a VMSnapshot while a node holds what was captured."""

SCHEDULE_LABEL: Final = f"{GROUP}/schedule"
"""On a VMSnapshot: the VMSnapshotSchedule that made it."""

RESTORE_LABEL: Final = f"{GROUP}/restore"
"""On a VirtualMachine or VMSnapshot: the UID of the VMRestore that made it."""

NETWORK_FINALIZER: Final = f"{GROUP}/network"
"""Held on a VirtualSwitch or SecurityGroup while a machine's card is plugged into it or belongs to it."""

MACHINE_UID_LABEL: Final = f"{GROUP}/machine-uid"
"""On a pod: the UID of the VirtualMachine for which it holds a PersistentVolumeClaim."""

NODE_LABEL: Final = f"{GROUP}/node"
"""The durable binding of a VirtualMachine: the name of the VMNode that runs it."""

MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
FIELD_MANAGER: Final = "virtfleet-operator"
"""Field manager, event source and managed-by value of everything the operator writes."""

DEFAULT_POOL: Final = "default"

CA_NAME: Final = "virtfleet-ca"
"""Secret with the fleet's certificate authority, and ConfigMap with its public part under `ca.crt`."""

OVN_NAME: Final = "virtfleet-ovn"
"""Secret with the authorities of OVN's two databases, for operators alone."""

OVN_TYPE: Final = f"{GROUP}/ovn-authorities"
"""Type of that Secret: whoever has it may rewrite every network."""

OVN_NORTHBOUND_TLS_NAME: Final = "virtfleet-ovn-northbound-tls"
OVN_SOUTHBOUND_TLS_NAME: Final = "virtfleet-ovn-southbound-tls"
"""Secrets with what OVN's two databases serve with: `tls.crt`, `tls.key`, and in `ca.crt` whose clients they serve."""

JOIN_TOKEN_TYPE: Final = f"{GROUP}/join-token"
"""Type of a Secret whose `token` lets the node `nodeName` enrol once."""

NODE_AUDIENCE: Final = f"enrol.{GROUP}"
"""Audience of the projected ServiceAccount token that a daemon in a pod enrols with."""

METADATA_NAMESPACE: Final = f"https://{GROUP}/machine/{VERSION}"
"""XML namespace of the element in a libvirt domain's <metadata> that keeps the desired state."""

UID_PATTERN: Final = r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"
DNS_LABEL_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
