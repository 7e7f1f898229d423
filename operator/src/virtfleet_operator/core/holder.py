"""The pod that holds a PersistentVolumeClaim on a machine's node: its name, its body, and what its status says.

It does nothing but have the kubelet mount the claim. QEMU never runs in it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from virtfleet_api.machine import VolumeMode
from virtfleet_api.names import API_VERSION, FIELD_MANAGER, MACHINE_UID_LABEL, MANAGED_BY_LABEL
from virtfleet_api.resource import ObjectMeta
from virtfleet_operator.core.verdict import plain

Body = Mapping[str, Any]
"""An object's JSON."""

CONTAINER: Final = "holder"

_VOLUME: Final = "claim"
_NOBODY: Final = 65534
_DIGITS: Final = 12
_MAX_NAME: Final = 63
"""A pod's name is its host name, too, which can be no longer."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A pod that shall be: it holds a claim for a machine's disk on a node."""

    machine: ObjectMeta
    disk: str
    claim: str
    mode: VolumeMode
    node_name: str

    @property
    def name(self) -> str:
        """Return the pod's name; one that holds something else, or elsewhere, has another."""
        parts = (self.machine.uid, self.disk, self.claim, self.mode.value, self.node_name)
        digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_DIGITS]
        readable = re.sub(r"[^a-z0-9]+", "-", f"{self.machine.name}-{self.disk}")
        return f"{readable[: _MAX_NAME - _DIGITS - 1].strip('-')}-{digest}"


def holder_selector() -> str:
    """Return the label selector of all holders."""
    return f"{MANAGED_BY_LABEL}={FIELD_MANAGER},{MACHINE_UID_LABEL}"


def holder_body(holder: Holder, image: str) -> dict[str, Any]:
    """Return the pod to create, as the pod security standard Restricted asks."""
    machine = holder.machine
    owner = {"apiVersion": API_VERSION, "kind": "VirtualMachine", "name": machine.name, "uid": machine.uid}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": holder.name,
            "namespace": machine.namespace,
            "labels": {MANAGED_BY_LABEL: FIELD_MANAGER, MACHINE_UID_LABEL: machine.uid},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": False}],
        },
        "spec": {
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _only_on(holder)}},
            "tolerations": [{"operator": "Exists"}],
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": 0,
            "restartPolicy": "Always",
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": _NOBODY,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [_container(holder, image)],
            "volumes": [{"name": _VOLUME, "persistentVolumeClaim": {"claimName": holder.claim}}],
        },
    }


def _only_on(holder: Holder) -> dict[str, Any]:
    """Choose the node by its name. The scheduler has its say all the same: it binds a claim that waits for a pod."""
    field = {"key": "metadata.name", "operator": "In", "values": [holder.node_name]}
    return {"nodeSelectorTerms": [{"matchFields": [field]}]}


def _container(holder: Holder, image: str) -> dict[str, Any]:
    use: dict[str, Any] = (
        {"volumeDevices": [{"name": _VOLUME, "devicePath": "/dev/claim"}]}
        if holder.mode is VolumeMode.BLOCK
        else {"volumeMounts": [{"name": _VOLUME, "mountPath": "/claim", "readOnly": True}]}
    )
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",  # whatever its tag: a guest can be started while the registry is away
        "command": ["sleep", "infinity"],
        "resources": {"requests": {"cpu": "1m", "memory": "4Mi"}, "limits": {"memory": "32Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        **use,
    }


def is_ours(pod: Body, holder: Holder) -> bool:
    """Tell whether a pod of the holder's name is the holder: made for this machine, with this claim and no other."""
    metadata = pod["metadata"]
    labels, owners = metadata.get("labels") or {}, metadata.get("ownerReferences") or []
    made = labels.get(MACHINE_UID_LABEL) == holder.machine.uid and labels.get(MANAGED_BY_LABEL) == FIELD_MANAGER
    return made and any(owner["uid"] == holder.machine.uid for owner in owners) and claims_of(pod) == {holder.claim}


def claims_of(pod: Body) -> set[str]:
    """Return the claims that a pod mounts."""
    volumes = pod["spec"].get("volumes") or []
    return {volume["persistentVolumeClaim"]["claimName"] for volume in volumes if volume.get("persistentVolumeClaim")}


def other_volumes(pod: Body) -> set[str]:
    """Return the names of a pod's volumes that are no claims."""
    volumes = pod["spec"].get("volumes") or []
    return {volume["name"] for volume in volumes if not volume.get("persistentVolumeClaim")}


def is_ending(pod: Body) -> bool:
    """Tell whether a pod is being deleted."""
    return "deletionTimestamp" in pod["metadata"]


def is_over(pod: Body) -> bool:
    """Tell whether a pod has ended for good, such as by an eviction."""
    return _status(pod).get("phase") in ("Failed", "Succeeded")


def is_holding(pod: Body) -> bool:
    """Tell whether the kubelet has mounted the claim for the pod, which then runs."""
    ready = any(found.get("name") == CONTAINER and found.get("ready") for found in _containers(pod))
    return _status(pod).get("phase") == "Running" and ready and not is_ending(pod)


def uses_image(pod: Body, image: str) -> bool:
    """Tell whether a pod was made with the image."""
    return any(found["name"] == CONTAINER and found["image"] == image for found in pod["spec"]["containers"])


def obstacle(pod: Body) -> str:
    """Say in the words of the scheduler or the kubelet why a pod does not run yet."""
    if is_ending(pod):
        return "it is being deleted"
    if is_over(pod):
        words = (_status(pod).get("reason"), _status(pod).get("message"))
        return plain(": ".join(("it has ended", *(word for word in words if word))))
    for condition in _status(pod).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return plain(condition.get("message") or condition.get("reason") or "it is not scheduled")
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if said := ": ".join(word for word in (waiting.get("reason"), waiting.get("message")) if word):
            return plain(said)
    return "it is being started"


def _status(pod: Body) -> Body:
    found: Body = pod.get("status") or {}
    return found


def _containers(pod: Body) -> list[Body]:
    return list(_status(pod).get("containerStatuses") or [])
