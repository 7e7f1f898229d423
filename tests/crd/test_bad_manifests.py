"""A real API server refuses every bad manifest of the corpus, by its schema or by our webhook, and stores none.

With the webhook away it stores what the schema lets pass, and the core says of the stored object what the webhook
would have said.
"""

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kopf
import pytest
import yaml
from kubernetes import client, config

from virtfleet_api.kinds import KINDS
from virtfleet_api.names import FINALIZER, GROUP, NODE_LABEL, VERSION
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.vm_class import VMClass
from virtfleet_api.vm_disk import VMDisk
from virtfleet_api.vm_image import VMImage
from virtfleet_dev.control_plane import ControlPlane, free_port
from virtfleet_dev.kubectl import KubectlError
from virtfleet_dev.pki import LocalAuthority
from virtfleet_operator.core.parse import parse
from virtfleet_operator.core.validate import check
from virtfleet_operator.core.verdict import Invalid
from virtfleet_operator.settings import build_kopf_settings
from virtfleet_operator.webhooks import register

CORPUS = Path(__file__).parents[1] / "unit" / "manifests" / "bad.yaml"
CASES = yaml.safe_load(CORPUS.read_text(encoding="utf-8"))["cases"]
KIND = {kind.__name__: kind for kind in KINDS}
CONFIGURATION = "validation.virtfleet.io"
START_SECONDS = 60

SCHEMA_REMEDY = re.compile(
    r"[Uu]nsupported value.*supported values|should match|should be|must be of type|Required value|Duplicate value"
    r"|less than or equal|greater than or equal|may not be longer|should have at (most|least)"
)
"""How the API server's own messages say what to write."""


def cases(*by: str) -> Any:
    return pytest.mark.parametrize(
        "case", [case for case in CASES if case["by"] in by], ids=lambda case: str(case["name"])
    )


@dataclass
class Objects:
    """What the webhook finds in the cluster: our own port, filled by the tests."""

    images: dict[tuple[str, str], VMImage] = field(default_factory=dict)
    classes: dict[str, VMClass] = field(default_factory=dict)
    users: Sequence[str] = ()
    machines: Sequence[str] = ()

    def image(self, namespace: str, name: str) -> VMImage | None:
        return self.images.get((namespace, name))

    def machine(self, _namespace: str, _name: str) -> VirtualMachine | None:
        return None

    def vm_class(self, name: str) -> VMClass | None:
        return self.classes.get(name)

    def image_users(self, _namespace: str, _name: str) -> Sequence[str]:
        return self.users

    def vm_disk(self, _namespace: str, _name: str) -> VMDisk | None:
        return None

    def disk_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return ()

    def snapshot(self, _namespace: str, _name: str) -> None:
        return None

    def unfinished_restores(self, _namespace: str) -> tuple[()]:
        return ()

    def machine_snapshots(self, _namespace: str, _name: str) -> tuple[()]:
        return ()

    def snapshot_restores(self, _namespace: str, _name: str) -> tuple[()]:
        return ()

    def node_machines(self, _name: str) -> Sequence[str]:
        return self.machines


@pytest.fixture(scope="module")
def api(control_plane: ControlPlane) -> client.CustomObjectsApi:
    return client.CustomObjectsApi(config.new_client_from_config(str(control_plane.kubeconfig)))


def refused(api: client.CustomObjectsApi, kind: str, body: dict[str, Any]) -> str:
    """Create an object and return why the API server would not."""
    with pytest.raises(client.ApiException) as caught:
        create(api, kind, body)
    return str(json.loads(caught.value.body)["message"])


def create(api: client.CustomObjectsApi, kind: str, body: dict[str, Any]) -> dict[str, Any]:
    if KIND[kind].namespaced:
        made = api.create_namespaced_custom_object(GROUP, VERSION, "default", KIND[kind].plural, body)
    else:
        made = api.create_cluster_custom_object(GROUP, VERSION, KIND[kind].plural, body)
    return dict(made)


def delete(api: client.CustomObjectsApi, kind: str, name: str) -> None:
    if KIND[kind].namespaced:
        api.delete_namespaced_custom_object(GROUP, VERSION, "default", KIND[kind].plural, name)
    else:
        api.delete_cluster_custom_object(GROUP, VERSION, KIND[kind].plural, name)


def manifest(case: dict[str, Any], name: str = "case") -> dict[str, Any]:
    metadata = {"name": name} | case.get("metadata", {})
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": case["kind"], "metadata": metadata, "spec": case["spec"]}


def machine(name: str, **spec: Any) -> dict[str, Any]:
    return manifest({"kind": "VirtualMachine", "spec": {"memory": {"guest": "1Gi"}} | spec}, name)


def configuration(control_plane: ControlPlane) -> dict[str, Any] | None:
    return control_plane.kubectl.get("validatingwebhookconfiguration", CONFIGURATION)


@contextmanager
def webhooks(control_plane: ControlPlane, directory: Path, objects: Objects) -> Iterator[None]:
    """Run kopf with our webhooks and nothing else, as the operator's user."""
    certificate = LocalAuthority(directory, "webhook-ca").issue("webhook", "webhook", server_names=["127.0.0.1"])
    registry, settings = kopf.OperatorRegistry(), build_kopf_settings()
    settings.admission.managed = CONFIGURATION
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        port=free_port(),
        host="127.0.0.1",
        certfile=certificate.certificate,
        pkeyfile=certificate.key,
        cafile=directory / "webhook-ca.crt",
    )
    kopf.on.login(registry=registry)(kopf.login_with_kubeconfig)
    register(registry, lambda: objects, lambda: datetime.now(UTC))
    stop, ready = threading.Event(), threading.Event()
    user = control_plane.write_kubeconfig(directory / "operator.kubeconfig", "virtfleet-operator", None)
    options = {"registry": registry, "settings": settings, "standalone": True, "clusterwide": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(user))
        thread = threading.Thread(target=kopf.run, kwargs={**options, "stop_flag": stop, "ready_flag": ready})
        thread.start()
        try:
            assert ready.wait(START_SECONDS)
            wait_for_refusals(control_plane)
            yield
        finally:
            stop.set()
            thread.join(START_SECONDS)
    assert not thread.is_alive()


def wait_for_refusals(control_plane: ControlPlane) -> None:
    """Wait until the API server asks the webhook: it learns of a configuration with a delay."""
    bad = machine("probe", runStrategy="Always", powerState="Stopped")
    probe = yaml.safe_dump(bad)
    deadline = threading.Event()
    for _ in range(START_SECONDS * 5):
        done = control_plane.kubectl.attempt("create", "--dry-run=server", "-f", "-", stdin=probe)
        if "denied the request" in done.stderr:
            return
        deadline.wait(0.2)
    raise AssertionError("the API server does not ask the webhook")


@pytest.fixture(scope="class")
def objects() -> Objects:
    image = {"metadata": {"name": "big", "namespace": "default", "uid": "u"}, "status": {"virtualSize": "10Gi"}}
    kernel = {"metadata": {"name": "linux", "namespace": "default", "uid": "k"}}
    source = {"http": {"url": "https://images.example.org/x"}}
    return Objects(
        images={
            ("default", "big"): VMImage.model_validate(image | {"spec": {"source": source}}),
            ("default", "linux"): VMImage.model_validate(kernel | {"spec": {"source": source, "type": "Kernel"}}),
        },
        classes={"cpu-only": VMClass.model_validate({"metadata": {"name": "cpu-only"}, "spec": {}})},
    )


@pytest.fixture(scope="class")
def served(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory, objects: Objects) -> Any:
    with webhooks(control_plane, tmp_path_factory.mktemp("webhook"), objects):
        yield


@pytest.fixture(scope="class")
def unserved(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with webhooks(control_plane, tmp_path_factory.mktemp("webhook"), Objects()):
        announced = configuration(control_plane)
    assert announced is not None
    announced["metadata"] = {"name": "gone.virtfleet.io"}
    control_plane.kubectl.apply(announced)
    yield
    control_plane.kubectl.run("delete", "validatingwebhookconfiguration", "gone.virtfleet.io")


@pytest.mark.usefixtures("served")
class TestRefused:
    """With the webhook there."""

    @cases("schema")
    def test_by_the_schema(self, api: client.CustomObjectsApi, case: dict[str, Any]) -> None:
        message = refused(api, case["kind"], manifest(case))
        field_name = re.split(r"[.\[]", case["says"][0].split(": ", 1)[0].rstrip("0123456789]["))[-1]
        assert field_name in message
        assert SCHEMA_REMEDY.search(message), message

    @cases("webhook")
    def test_by_the_webhook(self, api: client.CustomObjectsApi, case: dict[str, Any]) -> None:
        message = refused(api, case["kind"], manifest(case))
        said = "; ".join(case["says"])
        if "current time" in said:
            message = re.sub(r'"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ"', '"2026-11-23T10:00:00Z"', message)
        assert message.endswith(f"denied the request: {said}")

    @cases("unknown")
    def test_by_kubectl(self, control_plane: ControlPlane, case: dict[str, Any]) -> None:
        with pytest.raises(KubectlError, match="unknown field"):
            control_plane.kubectl.apply(manifest(case))

    def test_and_nothing_was_stored(self, control_plane: ControlPlane) -> None:
        kubectl = control_plane.kubectl
        assert [kind.plural for kind in KINDS if kubectl.list(f"{kind.plural}.{GROUP}")] == []

    def test_a_disk_smaller_than_its_image(self, api: client.CustomObjectsApi) -> None:
        disk = {"name": "root", "size": "1Gi", "source": {"image": {"name": "big"}}}
        message = refused(api, "VirtualMachine", machine("small", disks=[disk]))
        assert "spec.disks[0].size: '1Gi' is smaller than the image 'big': write \"10Gi\" or leave it out" in message

    def test_a_kernel_as_a_disk(self, api: client.CustomObjectsApi) -> None:
        disk = {"name": "root", "source": {"image": {"name": "linux"}}}
        assert "'linux' is a kernel: name a VMImage of type Disk" in refused(
            api, "VirtualMachine", machine("small", disks=[disk])
        )

    def test_a_class_without_memory(self, api: client.CustomObjectsApi) -> None:
        body = manifest({"kind": "VirtualMachine", "spec": {"className": "cpu-only"}}, "sized")
        assert "spec.memory.guest: is missing, and VMClass 'cpu-only' has none" in refused(api, "VirtualMachine", body)

    def test_what_is_not_there_yet_is_a_warning(
        self, control_plane: ControlPlane, api: client.CustomObjectsApi
    ) -> None:
        disk = {"name": "root", "source": {"image": {"name": "later"}}}
        text = yaml.safe_dump(machine("early", className="later", disks=[disk]))
        done = control_plane.kubectl.attempt("create", "-f", "-", stdin=text)
        assert done.returncode == 0
        assert "Warning: spec.className: there is no VMClass 'later'" in done.stderr
        assert "Warning: spec.disks[0].source.image: there is no VMImage 'later'" in done.stderr
        delete(api, "VirtualMachine", "early")

    def test_an_image_in_use_stays(self, api: client.CustomObjectsApi, objects: Objects) -> None:
        case = {"kind": "VMImage", "spec": {"source": {"http": {"url": "https://images.example.org/x"}}}}
        create(api, "VMImage", manifest(case, "used"))
        objects.users = ["shop/web-1", "shop/web-2"]
        with pytest.raises(client.ApiException) as caught:
            delete(api, "VMImage", "used")
        assert caught.value.status == 409
        assert "VMImage used is used by machines shop/web-1, shop/web-2: delete these" in caught.value.body
        objects.users = ()
        delete(api, "VMImage", "used")

    def test_a_node_with_machines_stays(self, api: client.CustomObjectsApi, objects: Objects) -> None:
        create(api, "VMNode", manifest({"kind": "VMNode", "spec": {}}, "node-a"))
        objects.machines = ["shop/web-1"]
        with pytest.raises(client.ApiException) as caught:
            delete(api, "VMNode", "node-a")
        assert "VMNode node-a runs machine shop/web-1: delete or move" in caught.value.body
        objects.machines = ()
        delete(api, "VMNode", "node-a")

    def test_a_binding_is_made_once_and_never_moved(self, api: client.CustomObjectsApi) -> None:
        create(api, "VirtualMachine", machine("bound"))
        where = GROUP, VERSION, "default", "virtualmachines", "bound"
        binding = {"metadata": {"labels": {NODE_LABEL: "node-a"}, "finalizers": [FINALIZER]}}
        api.patch_namespaced_custom_object(*where, binding)
        with pytest.raises(client.ApiException) as caught:
            api.patch_namespaced_custom_object(*where, {"metadata": {"labels": {NODE_LABEL: "node-b"}}})
        assert (
            f"metadata.labels[{NODE_LABEL}]: cannot change, as the machine is on node 'node-a'"
            in json.loads(caught.value.body)["message"]
        )
        with pytest.raises(client.ApiException) as caught:
            api.patch_namespaced_custom_object(*where, {"metadata": {"finalizers": None}})
        assert f"metadata.finalizers: must hold {FINALIZER} while the machine is on a node" in caught.value.body
        delete(api, "VirtualMachine", "bound")
        api.patch_namespaced_custom_object(*where, {"metadata": {"finalizers": None}})

    def test_a_bad_change_of_a_good_object(self, api: client.CustomObjectsApi) -> None:
        create(api, "VirtualMachine", machine("changed"))
        with pytest.raises(client.ApiException) as caught:
            api.patch_namespaced_custom_object(
                GROUP, VERSION, "default", "virtualmachines", "changed", {"spec": {"powerState": "Stopped"}}
            )
        assert "spec.powerState: Stopped contradicts runStrategy Always" in caught.value.body
        delete(api, "VirtualMachine", "changed")

    def test_what_exists_is_not_made_anew(self, api: client.CustomObjectsApi) -> None:
        disk = {"name": "root", "size": "2Gi", "source": {"blank": {}}}
        create(api, "VirtualMachine", machine("kept", disks=[disk]))
        where = GROUP, VERSION, "default", "virtualmachines", "kept"
        exists = {"name": "root", "pool": "default", "capacity": "2Gi", "target": "vda"}
        api.patch_namespaced_custom_object_status(*where, {"status": {"disks": [exists]}})
        for change, says in (
            ({"pool": "fast"}, "spec.disks[0].pool: cannot change from 'default' to 'fast'"),
            ({"size": "1Gi"}, "spec.disks[0].size: '1Gi' would shrink the disk"),
            ({"source": {"image": {"name": "other"}}}, "spec.disks[0].source: cannot change once the disk exists"),
        ):
            with pytest.raises(client.ApiException) as caught:
                api.patch_namespaced_custom_object(*where, {"spec": {"disks": [disk | change]}})
            assert says in json.loads(caught.value.body)["message"]
        delete(api, "VirtualMachine", "kept")

    def test_an_imported_image_stays_what_it_is(self, api: client.CustomObjectsApi) -> None:
        case = {"kind": "VMImage", "spec": {"source": {"http": {"url": "https://images.example.org/x"}}}}
        create(api, "VMImage", manifest(case, "imported"))
        where = GROUP, VERSION, "default", "vmimages", "imported"
        api.patch_namespaced_custom_object_status(*where, {"status": {"phase": "Ready"}})
        with pytest.raises(client.ApiException) as caught:
            api.patch_namespaced_custom_object(*where, {"spec": {"pool": "fast"}})
        assert "spec.pool: cannot change once the image is imported" in json.loads(caught.value.body)["message"]
        delete(api, "VMImage", "imported")


@pytest.mark.usefixtures("unserved")
class TestStored:
    """With the webhook announced and away: it fails open."""

    def test_the_webhook_is_still_announced_and_may_fail(self, control_plane: ControlPlane) -> None:
        announced = control_plane.kubectl.get("validatingwebhookconfiguration", "gone.virtfleet.io")
        assert announced is not None
        hooks = {hook["name"].split(".")[0]: hook for hook in announced["webhooks"]}
        assert {"virtualmachines-write", "vmimages-delete", "vmnodes-delete"} <= hooks.keys()
        assert all(hook["failurePolicy"] == "Ignore" and hook["sideEffects"] == "None" for hook in hooks.values())

    @cases("webhook")
    def test_and_the_same_is_said_of_it(self, api: client.CustomObjectsApi, case: dict[str, Any]) -> None:
        stored = create(api, case["kind"], manifest(case))
        delete(api, case["kind"], "case")
        parsed = parse(KIND[case["kind"]], stored)
        found = parsed if isinstance(parsed, Invalid) else check(parsed, datetime(2026, 11, 23, 10, tzinfo=UTC))
        assert found is not None
        assert list(found.problems) == case["says"]
