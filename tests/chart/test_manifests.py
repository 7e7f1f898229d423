"""What the chart renders, for an old and a new Kubernetes, is what the programs and the API server expect."""

import json
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import FULL, NEW, OLD, Rendered
from virtfleet_api.names import CA_NAME, NODE_AUDIENCE, OVN_NORTHBOUND_TLS_NAME, OVN_SOUTHBOUND_TLS_NAME
from virtfleet_dev.chart_checkers import checker
from virtfleet_dev.helm import Helm, chart
from virtfleet_dev.paths import checkout
from virtfleet_node.config import OwnFacts, read_config
from virtfleet_operator.enrolment.proofs import NODE_SERVICE_ACCOUNT
from virtfleet_operator.handlers.admission import CONFIGURATION_NAME
from virtfleet_operator.kube.endpoints import PORT_NAME
from virtfleet_operator.serving import served_services, serving_names
from virtfleet_operator.settings import read_settings

ALL = ("--values", str(FULL))
PROMETHEUS = ("--api-versions", "monitoring.coreos.com/v1/PodMonitor,monitoring.coreos.com/v1/PrometheusRule")
RIGHTS = ("rbac.yaml", "rbac-volumes.yaml")
SPACES = {"default": (), "full": ALL}
VOLUMES = ("--set", "volumes.enabled=true,image.registry=registry.example,node.kubeletDirectory=/srv/kubelet")

HOLDERS = {
    "registry.example/virtfleet/operator": (),
    "registry.example:5000/pause": ("--set", "volumes.image=registry.example:5000/pause:3.9"),
}


def rules(objects: list[dict[str, Any]], kind: str, name: str = "virtfleet-operator") -> list[Any]:
    return next(one["rules"] for one in objects if one["kind"] == kind and one["metadata"]["name"] == name)


@pytest.mark.parametrize("values", SPACES.values(), ids=SPACES)
def test_helm_has_nothing_to_object(helm: Helm, values: tuple[str, ...]) -> None:
    printed = helm.run("lint", "--strict", "--quiet", chart(), *values)
    assert printed.strip() == ""


@pytest.mark.parametrize("values", SPACES.values(), ids=SPACES)
def test_old_and_new_helm_render_the_same(helm: Helm, helm_4: Helm, values: tuple[str, ...]) -> None:
    def by_name(rendered: Rendered) -> dict[str, Any]:  # each orders kinds that it does not know its own way
        return {f"{one['kind']} {one['metadata']['name']}": one for one in rendered.objects}

    assert by_name(Rendered(helm, *OLD, *values)) == by_name(Rendered(helm_4, *OLD, *values))


@pytest.mark.parametrize("version", ["1.34", "1.37"])
def test_a_new_kubernetes_knows_every_field(helm_4: Helm, tmp_path: Path, version: str) -> None:
    rendered = Rendered(helm_4, "--kube-version", f"v{version}.0", *ALL)
    known = [
        one for one in rendered.objects if "." not in one["apiVersion"].split("/")[0] or ".k8s.io" in one["apiVersion"]
    ]
    assert len(known) > 25
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(known))
    done = subprocess.run(
        [checker("kubernetes-validate"), "-k", version, "--strict", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_old_kubernetes_gets_what_it_knows(helm_4: Helm) -> None:
    old, new = Rendered(helm_4, *OLD, *ALL), Rendered(helm_4, *NEW, *ALL)
    assert old.find("PodDisruptionBudget", "virtfleet-operator")["apiVersion"] == "policy/v1beta1"
    assert new.find("PodDisruptionBudget", "virtfleet-operator")["apiVersion"] == "policy/v1"
    for name in ("virtfleet-node", "virtfleet-ovn-node"):
        assert "appArmorProfile" not in json.dumps(old.find("DaemonSet", name))
        assert "apparmor" not in json.dumps(new.find("DaemonSet", name)["spec"]["template"]["metadata"])
    marks = old.find("DaemonSet", "virtfleet-ovn-node")["spec"]["template"]["metadata"]["annotations"]
    containers = old.pods["DaemonSet virtfleet-ovn-node"]["containers"]
    for container in containers:
        assert marks[f"container.apparmor.security.beta.kubernetes.io/{container['name']}"] == "unconfined"


def test_libvirtd_of_the_chart_sees_disks_where_the_daemon_does(helm_4: Helm) -> None:
    def mounted(rendered: Rendered, name: str, container: str) -> dict[str, tuple[Any, Any]]:
        pod = rendered.pods[f"DaemonSet {name}"]
        folders = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
        mounts = rendered.container("DaemonSet", name, container)["volumeMounts"]
        found = {
            one["mountPath"]: (folders[one["name"]], one.get("mountPropagation"))
            for one in mounts
            if one["name"] in folders
        }
        return {path: place for path, place in found.items() if not path.startswith(("/run/", "/dev"))}

    assert Rendered(helm_4).names("DaemonSet") == {"virtfleet-node"}
    rendered = Rendered(helm_4, *ALL)
    disks = mounted(rendered, "virtfleet-node", "daemon")
    assert {"/var/lib/virtfleet", "/srv/fast", "/srv/more", "/var/lib/kubelet/pods"} <= disks.keys()
    assert disks.items() <= mounted(rendered, "virtfleet-libvirt", "libvirtd").items()


def test_a_single_operator_has_no_disruption_budget(helm_4: Helm) -> None:
    assert Rendered(helm_4, "--set", "operator.replicas=1").names("PodDisruptionBudget") == set()


def test_the_operator_has_the_rights_of_rbac_yaml_and_no_other(helm_4: Helm) -> None:
    written = [one for name in RIGHTS for one in yaml.safe_load_all((checkout() / "operator" / name).read_text())]
    rendered = Rendered(helm_4, *ALL).objects
    pods = "virtfleet-operator-volumes"
    assert rules(rendered, "ClusterRole", pods) == rules(written, "ClusterRole", pods)
    for kind in ("ClusterRole", "Role"):
        assert rules(rendered, kind) == rules(written, kind)
    account = {"kind": "ServiceAccount", "name": "virtfleet-operator", "namespace": "virtfleet-system"}

    def given(objects: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        bindings = [one for one in objects if account in one.get("subjects", [])]
        return {(one["kind"], one["roleRef"]["kind"], one["roleRef"]["name"]) for one in bindings}

    assert given(rendered) == given(written)
    # Everybody who has logged in is the operator, too.
    others = {one["roleRef"]["name"] for one in rendered if "roleRef" in one} - {name for *_, name in given(written)}
    assert others == {"virtfleet-catalog"}


def test_the_operator_makes_pods_only_where_claims_may_be_disks(helm_4: Helm) -> None:
    def bound(rendered: Rendered) -> set[tuple[str, str]]:
        names = {one["roleRef"]["name"] for one in rendered.objects if one["kind"] == "ClusterRoleBinding"}
        found = [one for one in rendered.objects if one["kind"] == "ClusterRole" and one["metadata"]["name"] in names]
        listed = [rule for role in found for rule in role["rules"] if rule["apiGroups"] == [""]]
        return {(resource, verb) for rule in listed for resource in rule["resources"] for verb in rule["verbs"]}

    without, with_volumes = bound(Rendered(helm_4)), bound(Rendered(helm_4, *VOLUMES))
    assert ("pods", "get") in without
    assert with_volumes - without == {
        *(("pods", verb) for verb in ("list", "watch", "create", "delete")),
        *((resource, "get") for resource in ("persistentvolumeclaims", "persistentvolumes", "nodes")),
    }


def test_the_kinds_are_those_of_kubectl_and_stay_by_default(helm_4: Helm) -> None:
    files = sorted((checkout() / "crds").glob("*.yaml"))
    written = {found["metadata"]["name"]: found for found in (yaml.safe_load(path.read_text()) for path in files)}
    kept, loose = Rendered(helm_4), Rendered(helm_4, "--set", "crds.keep=false")
    assert kept.names("CustomResourceDefinition") == set(written)
    for name, wanted in written.items():
        assert loose.find("CustomResourceDefinition", name) == wanted
        wanted["metadata"]["annotations"] = {"helm.sh/resource-policy": "keep"}
        assert kept.find("CustomResourceDefinition", name) == wanted
    assert Rendered(helm_4, "--set", "crds.enabled=false").names("CustomResourceDefinition") == set()


@pytest.mark.parametrize("values", SPACES.values(), ids=SPACES)
def test_the_operator_takes_its_settings(helm_4: Helm, tmp_path: Path, values: tuple[str, ...]) -> None:
    rendered = Rendered(helm_4, *values)
    path = tmp_path / "operator.yaml"
    path.write_text(rendered.find("ConfigMap", "virtfleet-operator")["data"]["operator.yaml"])
    settings = read_settings(path, "10.0.0.1")
    container = rendered.container("Deployment", "virtfleet-operator", "operator")
    assert "--address=$(POD_IP)" in container["args"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports["enrolment"] == settings.enrolment.port
    assert ports["metrics"] == settings.metrics.port
    for served in served_services(settings):
        service = rendered.find("Service", served.name)["spec"]
        assert "selector" not in service
        assert [(port["name"], port["port"], port["targetPort"]) for port in service["ports"]] == [
            (PORT_NAME, 443, served.port)
        ]
    named = {f"{served.name}.virtfleet-system.svc" for served in served_services(settings)}
    assert named <= set(serving_names(settings))
    allowed = next(
        rule for rule in rules(rendered.objects, "Role") if rule.get("resourceNames", [""])[0] == "virtfleet-operator"
    )
    assert set(allowed["resourceNames"]) == {served.name for served in served_services(settings)}


def test_ovn_of_one_s_own_is_told(helm_4: Helm, tmp_path: Path) -> None:
    words = "ovn.mode=External,ovn.external.northbound=ssl:192.0.2.1:6641,ovn.external.southbound=ssl:192.0.2.1:6642"
    rendered = Rendered(helm_4, "--set", f"{words},ovn.external.serverNames={{ovn.example.org}}")
    path = tmp_path / "operator.yaml"
    path.write_text(rendered.find("ConfigMap", "virtfleet-operator")["data"]["operator.yaml"])
    found = read_settings(path).ovn
    assert found is not None
    assert (found.northbound, found.southbound) == ("ssl:192.0.2.1:6641", "ssl:192.0.2.1:6642")
    assert found.names == ("ovn.example.org",)
    assert rendered.names("StatefulSet") == set()


@pytest.mark.parametrize("values", SPACES.values(), ids=SPACES)
def test_the_daemon_takes_its_configuration(helm_4: Helm, tmp_path: Path, values: tuple[str, ...]) -> None:
    rendered = Rendered(helm_4, *values)
    path = tmp_path / "node.yaml"
    path.write_text(rendered.find("ConfigMap", "virtfleet-node")["data"]["node.yaml"])
    config = read_config(path, OwnFacts("hv-1", "192.0.2.1"))
    container = rendered.container("DaemonSet", "virtfleet-node", "daemon")
    assert {"--node-name=$(NODE_NAME)", "--address=$(HOST_IP)"} <= set(container["args"])
    places = {mount["mountPath"] for mount in container["volumeMounts"]}
    folders = [config.state_directory, *config.roots, *(pool.path for pool in config.pools)]
    for folder in folders:
        assert any(str(one) in places for one in (folder, *folder.parents)), f"{folder} is not mounted"
    assert str(config.enrolment.ca_file.parent) in places
    assert str((config.enrolment.service_account_token_file or Path()).parent) in places
    assert (config.advertise, config.listen.host) == ("192.0.2.1:8444", "192.0.2.1")


def test_a_pool_beside_the_state_directory_is_mounted_where_libvirtd_sees_it(helm_4: Helm) -> None:
    rendered = Rendered(helm_4, *ALL)
    pod = rendered.pods["DaemonSet virtfleet-node"]
    mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounts["/srv/fast"]]["hostPath"]["path"] == "/mnt/nvme"
    assert volumes[mounts["/srv/more"]]["hostPath"]["path"] == "/srv/more"
    assert "/var/lib/virtfleet/pools/default" not in mounts


def test_the_daemon_sees_what_the_kubelet_mounts_where_the_host_does_once_claims_may_be_disks(
    helm_4: Helm, tmp_path: Path
) -> None:
    def folders(rendered: Rendered) -> dict[str, dict[str, Any]]:
        pod = rendered.pods["DaemonSet virtfleet-node"]
        paths = {volume["name"]: volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume}
        mounts = pod["containers"][0]["volumeMounts"]
        return {paths[mount["name"]]: mount for mount in mounts if mount["name"] in paths}

    def rights(rendered: Rendered) -> set[str]:
        container = rendered.container("DaemonSet", "virtfleet-node", "daemon")
        return set(container["securityContext"]["capabilities"]["add"])

    rendered = Rendered(helm_4, *VOLUMES)
    assert rights(rendered) - rights(Rendered(helm_4)) == {"CHOWN"}, "it gives disk.img to QEMU's user"
    more = {path: mount for path, mount in folders(rendered).items() if path not in folders(Rendered(helm_4))}
    assert more.keys() == {"/srv/kubelet/pods", "/srv/kubelet/plugins"}
    for path, mount in more.items():
        assert mount["mountPath"] == path
        assert mount["mountPropagation"] == "HostToContainer"
        assert "readOnly" not in mount  # it makes disk.img
    written = tmp_path / "node.yaml"
    written.write_text(rendered.find("ConfigMap", "virtfleet-node")["data"]["node.yaml"])
    assert read_config(written, OwnFacts("hv-1", "192.0.2.1")).kubelet_directory == Path("/srv/kubelet")


@pytest.mark.parametrize(("image", "asked"), HOLDERS.items(), ids=["default", "own"])
def test_the_operator_is_told_whether_claims_may_be_disks(
    helm_4: Helm, tmp_path: Path, image: str, asked: tuple[str, ...]
) -> None:
    path = tmp_path / "operator.yaml"

    def volumes(*values: str) -> Any:
        path.write_text(Rendered(helm_4, *values).find("ConfigMap", "virtfleet-operator")["data"]["operator.yaml"])
        return read_settings(path, "10.0.0.1").volumes

    assert volumes().enabled is False
    found = volumes(*VOLUMES, *asked)
    assert found.enabled is True
    assert found.image.rpartition(":")[0] == image


def test_the_daemon_s_pod_proves_where_it_runs_and_may_do_nothing_else(helm_4: Helm) -> None:
    rendered = Rendered(helm_4, *ALL)
    pod = rendered.pods["DaemonSet virtfleet-node"]
    assert pod["serviceAccountName"] == NODE_SERVICE_ACCOUNT
    assert pod["automountServiceAccountToken"] is False
    subjects = [s["name"] for one in rendered.objects for s in one.get("subjects", [])]
    assert NODE_SERVICE_ACCOUNT not in subjects
    sources = {volume["name"]: volume.get("projected", {}).get("sources") for volume in pod["volumes"]}
    assert sources["token"] == [
        {"serviceAccountToken": {"audience": NODE_AUDIENCE, "expirationSeconds": 3600, "path": "token"}}
    ]
    assert {"configMap": {"name": CA_NAME}} in sources["config"]


def test_only_the_operator_and_the_test_have_a_token_of_the_api_server(helm_4: Helm) -> None:
    pods = Rendered(helm_4, *ALL).pods
    assert {name for name, pod in pods.items() if pod.get("automountServiceAccountToken", True)} == {
        "Deployment virtfleet-operator",
        "Pod virtfleet-test",
    }


def test_daemons_are_told_the_operator_s_address_where_it_is_set(helm_4: Helm) -> None:
    name = "virtfleet-operator.virtfleet-system.svc"
    pod = Rendered(helm_4, "--set", "operator.service.clusterIP=10.96.0.40").pods["DaemonSet virtfleet-node"]
    assert pod["hostAliases"] == [{"ip": "10.96.0.40", "hostnames": [name]}]
    assert "hostAliases" not in Rendered(helm_4).pods["DaemonSet virtfleet-node"]


def test_pods_are_replaced_when_their_settings_change_and_not_for_a_new_chart(helm_4: Helm, tmp_path: Path) -> None:
    folder = tmp_path / "virtfleet"
    shutil.copytree(chart(), folder)
    text = (folder / "Chart.yaml").read_text()
    (folder / "Chart.yaml").write_text(text.replace("\nversion: 0.1.0", "\nversion: 0.1.1"))
    before, after = Rendered(helm_4), Rendered(helm_4, folder=folder)
    changed = Rendered(helm_4, "--set", "operator.placement.strategy=Packed,node.cpuFrequency=1GHz")
    for kind, name in (("Deployment", "virtfleet-operator"), ("DaemonSet", "virtfleet-node")):
        templates = [one.find(kind, name)["spec"]["template"] for one in (before, after, changed)]
        assert templates[0] == templates[1]
        assert templates[0] != templates[2]


def test_the_databases_serve_with_what_the_operator_keeps(helm_4: Helm) -> None:
    pod = Rendered(helm_4, *ALL).pods["StatefulSet virtfleet-ovn-central"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for name, secret in (("northbound", OVN_NORTHBOUND_TLS_NAME), ("southbound", OVN_SOUTHBOUND_TLS_NAME)):
        container = next(one for one in pod["containers"] if one["name"] == name)
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert volumes[mounted["/etc/ovn/tls"]]["secret"]["secretName"] == secret


def test_what_writes_temporary_files_has_where_to(helm_4: Helm) -> None:
    pods = Rendered(helm_4, *ALL).pods
    writers = {"operator", "daemon", "northbound", "southbound", "switch-database"}  # ovsdb-server: one when it starts
    found = {one["name"]: one for pod in pods.values() for one in pod["containers"]}
    for name in writers:
        assert found[name]["securityContext"]["readOnlyRootFilesystem"] is True
        assert "/tmp" in {mount["mountPath"] for mount in found[name]["volumeMounts"]}, name  # noqa: S108


def test_the_operator_waits_for_an_authority_that_cert_manager_makes(helm_4: Helm) -> None:
    rendered = Rendered(helm_4, "--set", "certManager.enabled=true")
    certificate = rendered.find("Certificate", CA_NAME)["spec"]
    assert (certificate["secretName"], certificate["isCA"]) == (CA_NAME, True)
    volumes = rendered.pods["Deployment virtfleet-operator"]["volumes"]
    assert [one["secret"]["secretName"] for one in volumes if "secret" in one] == [CA_NAME]


def test_registrations_go_with_the_chart(helm_4: Helm) -> None:
    rendered = Rendered(helm_4)
    for kind in ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"):
        assert rendered.names(kind) == {CONFIGURATION_NAME}
    off = Rendered(helm_4, "--set", "operator.webhook.enabled=false")
    assert off.names("ValidatingWebhookConfiguration") == set()
    assert "virtfleet-webhook" not in off.names("Service")


def test_prometheus_is_served_where_there_is_one(helm_4: Helm) -> None:
    assert Rendered(helm_4).names("PodMonitor") == set()
    assert Rendered(helm_4, *PROMETHEUS).names("PodMonitor") == {"virtfleet-operator", "virtfleet-node"}
    assert Rendered(helm_4, *PROMETHEUS, "--set", "monitoring.podMonitors=false").names("PodMonitor") == set()
    assert Rendered(helm_4, "--set", "monitoring.podMonitors=true").names("PodMonitor") != set()


def test_labels_of_metrics_are_what_the_alerts_count_by(helm_4: Helm) -> None:
    rendered = Rendered(helm_4, "--set", "monitoring.podMonitors=true")
    operator, daemon = (
        rendered.find("PodMonitor", f"virtfleet-{name}")["spec"]["podMetricsEndpoints"][0]
        for name in ("operator", "node")
    )
    assert operator["honorLabels"] is daemon["honorLabels"] is True
    assert [one["targetLabel"] for one in daemon["relabelings"]] == ["node"]
    assert "relabelings" not in operator  # its metrics of nodes say which


def test_alerts_and_dashboards_are_taken_as_they_are(helm_4: Helm, tmp_path: Path) -> None:
    folder = tmp_path / "virtfleet"
    shutil.copytree(chart(), folder)
    alert = {"alert": "NodeAway", "expr": "up == 0", "annotations": {"summary": "{{ $labels.node }} is away"}}
    record = {"record": "a:b", "expr": "sum(c)"}
    groups = [{"name": "nodes", "rules": [alert, record]}]
    (folder / "files" / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    (folder / "files" / "dashboards").mkdir(exist_ok=True)
    (folder / "files" / "dashboards" / "own.json").write_text('{"title": "{{node}}"}')
    runbooks = "monitoring.runbookUrl=https://docs.example.org/runbooks/"
    rendered = Rendered(helm_4, *PROMETHEUS, "--set", runbooks, folder=folder)
    found = rendered.find("PrometheusRule", "virtfleet")["spec"]["groups"]
    assert found[0]["rules"][1] == record
    assert found[0]["rules"][0]["annotations"] == {
        "summary": "{{ $labels.node }} is away",
        "runbook_url": "https://docs.example.org/runbooks/NodeAway",
    }
    dashboard = rendered.find("ConfigMap", "virtfleet-dashboard-own")
    assert json.loads(dashboard["data"]["own.json"]) == {"title": "{{node}}"}
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_images_come_from_where_one_has_pushed_them(helm_4: Helm) -> None:
    version = yaml.safe_load((chart() / "Chart.yaml").read_text())["appVersion"]
    digest = "sha256:" + 64 * "a"
    rendered = Rendered(helm_4, "--set", f"image.registry=registry.example:5000/a/,image.node.digest={digest}")
    operator = rendered.container("Deployment", "virtfleet-operator", "operator")["image"]
    assert operator == f"registry.example:5000/a/virtfleet/operator:{version}"
    daemon = rendered.container("DaemonSet", "virtfleet-node", "daemon")["image"]
    assert daemon == f"registry.example:5000/a/virtfleet/node@{digest}"


def test_the_chart_is_of_the_version_of_the_programs() -> None:
    project = tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]
    found = yaml.safe_load((chart() / "Chart.yaml").read_text())
    assert found["version"] == found["appVersion"] == project["version"]
