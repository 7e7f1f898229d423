"""Manifests that cannot be served: refused at apply, or, when the webhook is away, Invalid with the same sentence."""

import json

from fleet import Fleet, eventually
from virtfleet_dev.kubectl import Kubectl

CONFIGURATION = "validatingwebhookconfiguration"


def manifest(name: str, **spec: object) -> dict:
    return {
        "apiVersion": "virtfleet.io/v1alpha1",
        "kind": "VirtualMachine",
        "metadata": {"name": name},
        "spec": {"memory": {"guest": "160Mi"}, "runStrategy": "Halted", **spec},
    }


def webhook(kubectl: Kubectl) -> dict:
    items = kubectl.list(CONFIGURATION)
    return next(item for item in items if "virtfleet" in item["metadata"]["name"])


def test_the_same_sentence_with_and_without_the_webhook(fleet: Fleet) -> None:
    kubectl = fleet.cluster.kubectl
    bad = manifest("multicast", networks=[{"name": "eth0", "user": {}, "macAddress": "01:00:5e:00:00:01"}])
    refused = kubectl.attempt("apply", "-f", "-", stdin=json.dumps(bad))
    assert refused.returncode != 0
    assert "spec.networks[0].macAddress" in refused.stderr

    found = webhook(kubectl)
    kubectl.run("delete", CONFIGURATION, found["metadata"]["name"])
    try:
        kubectl.apply(bad)
        status = fleet.wait_status("multicast", "Invalid")
        ready = next(c for c in status["conditions"] if c["type"] == "Ready")
        assert ready["reason"] == "Invalid"
        assert ready["message"].rstrip(".") in refused.stderr
    finally:
        kubectl.run("delete", "vm", "multicast", "--ignore-not-found")
        kept = {key: found["metadata"][key] for key in ("name", "labels") if key in found["metadata"]}
        kubectl.apply({**found, "metadata": kept})


def test_an_unknown_field_is_refused_by_kubectl(fleet: Fleet) -> None:
    done = fleet.cluster.kubectl.attempt("apply", "-f", "-", stdin=json.dumps(manifest("stranger", gpu={"count": 1})))
    assert done.returncode != 0
    assert "gpu" in done.stderr


def test_an_object_of_a_newer_version_is_invalid_and_not_half_done(fleet: Fleet) -> None:
    kubectl = fleet.cluster.kubectl
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/telepathy"
    crd = "virtualmachines.virtfleet.io"
    add = [{"op": "add", "path": schema, "value": {"type": "boolean", "description": "Of a later version."}}]
    kubectl.run("patch", "crd", crd, "--type=json", "-p", json.dumps(add))
    try:
        newer = manifest("newer", runStrategy="Always", telepathy=True)

        def refused() -> bool:  # until the API server has taken up the schema, it drops the field
            words = ("apply", "--validate=false", "--dry-run=server", "-f", "-")
            done = kubectl.attempt(*words, stdin=json.dumps(newer))
            return done.returncode != 0 and "telepathy" in done.stderr

        eventually(refused, "the webhook names the field")
        found = webhook(kubectl)
        kubectl.run("delete", CONFIGURATION, found["metadata"]["name"])
        kubectl.run("apply", "--validate=false", "-f", "-", stdin=json.dumps(newer))
        status = fleet.wait_status("newer", "Invalid")
        assert "telepathy" in next(c for c in status["conditions"] if c["type"] == "Ready")["message"]
        uid = fleet.get("newer")["metadata"]["uid"]
        assert not any(uid in fleet.domains(node) for node in fleet.cluster.nodes)
        kept = {key: found["metadata"][key] for key in ("name", "labels") if key in found["metadata"]}
        kubectl.apply({**found, "metadata": kept})
    finally:
        fleet.delete("newer")
        kubectl.run("patch", "crd", crd, "--type=json", "-p", json.dumps([{"op": "remove", "path": schema}]))
