"""The chart on a real API server, with operators that have the chart's settings and its ServiceAccount's rights."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtfleet_dev.control_plane import ControlPlane, free_port
from virtfleet_dev.helm import Helm, HelmError, chart
from virtfleet_dev.kube_tools import Release, kube_tools
from virtfleet_dev.kubectl import Kubectl
from virtfleet_dev.paths import program
from virtfleet_dev.process import Program, wait_until

SPACE = "fleet"
REGISTRATION = "v1alpha1.subresources.virtfleet.io"
SERVICES = ("virtfleet-operator", "virtfleet-webhook", "virtfleet-subresources")
VALUES = ("--set", "operator.service.clusterIP=10.96.0.40,listenAddress=127.0.0.1,operator.lease.durationSeconds=4")
LEASE = ("--set", "operator.lease.renewSeconds=1")
PATIENCE_SECONDS = 120.0


@dataclass
class Installation:
    """A release of the chart in a cluster that has no kubelet: operators are processes of the test."""

    helm: Helm
    kubectl: Kubectl
    control_plane: ControlPlane
    folder: Path
    operators: dict[str, Program] = field(default_factory=dict)

    def run(self, verb: str, *options: str) -> str:
        """Run helm for the release."""
        return self.helm.run(verb, "virtfleet", *options, "--namespace", SPACE)

    def install(self, verb: str, *options: str) -> None:
        """Install or upgrade the chart."""
        more = ("--create-namespace",) if verb == "install" else ()
        self.run(verb, str(chart()), *more, *VALUES, *LEASE, *options)

    def clear(self) -> None:
        """Leave nothing of a test that failed to the next one, or to the same one when it runs again."""
        for operator in self.operators.values():
            operator.kill()
        self.operators.clear()
        self.run("uninstall", "--ignore-not-found")
        self.wait(lambda: self.kubectl.get("apiservice", REGISTRATION) is None, "the registration is gone")

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """Return an object that must be there."""
        found = self.kubectl.get(kind, name, SPACE)
        assert found is not None, f"there is no {kind} {name}"
        return found

    def start_operator(self, address: str) -> Program:
        """Start an operator as the Deployment would, but on ports of its own."""
        settings = yaml.safe_load(self.get("configmap", "virtfleet-operator")["data"]["operator.yaml"])
        for part in ("enrolment", "webhook", "subresources", "metrics"):
            settings[part]["port"] = free_port()
        config = self.folder / f"{address}.yaml"
        config.write_text(yaml.safe_dump({**settings, "kubeconfig": str(self._kubeconfig())}))
        operator = Program(f"operator-{address}", self.folder)
        operator.start([program("virtfleet-operator"), "--config", config, "--address", address])
        self.operators[address] = operator
        return operator

    def wait(self, ready: Any, what: str, operator: Program | None = None) -> None:
        """Wait until something holds, or the operator that it takes has ended."""
        wait_until(ready, PATIENCE_SECONDS, what, operator)

    def leads_to(self, address: str) -> bool:
        """Tell whether all the Services lead to an address."""
        return all(self.addresses(name) == [address] for name in SERVICES)

    def addresses(self, service: str) -> list[str]:
        """Return where a Service leads."""
        subsets = (self.kubectl.get("endpoints", service, SPACE) or {}).get("subsets") or []
        return [address["ip"] for subset in subsets for address in subset["addresses"]]

    def webhooks(self) -> list[Any]:
        """Return what is registered for validation."""
        found = self.get("validatingwebhookconfiguration", "validation.virtfleet.io")
        return list(found.get("webhooks") or [])

    def _kubeconfig(self) -> Path:
        token = self.kubectl.run("-n", SPACE, "create", "token", "virtfleet-operator").strip()
        config = yaml.safe_load(self.control_plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        path = self.folder / "operator.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path


@pytest.fixture(scope="module")
def installation(
    empty_cluster: ControlPlane, release: Release, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    tools = kube_tools(release)
    folder = tmp_path_factory.mktemp("installed")
    helm, kubectl = Helm(tools.helm, empty_cluster.kubeconfig), Kubectl(tools.kubectl, empty_cluster.kubeconfig)
    built = Installation(helm, kubectl, empty_cluster, folder)
    with ExitStack() as last:
        last.callback(lambda: [operator.kill() for operator in built.operators.values()])
        yield built


@pytest.fixture(autouse=True)
def tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "installation" in request.fixturenames:
        request.getfixturevalue("installation").clear()


def machine(name: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    spec = {"memory": {"guest": "512Mi"}}
    return {"apiVersion": "virtfleet.io/v1alpha1", "kind": "VirtualMachine", "metadata": metadata, "spec": spec}


def test_the_life_of_an_installation(installation: Installation) -> None:
    own = installation
    own.install("install")
    own.wait(lambda: own.kubectl.attempt("get", "vm").returncode == 0, "the new kinds are served")
    own.kubectl.apply(machine("kept"))
    uid = (own.kubectl.get("vm", "kept") or {})["metadata"]["uid"]

    first = own.start_operator("192.0.2.1")
    own.wait(lambda: own.leads_to("192.0.2.1"), "the Services lead to the operator", first)
    own.wait(lambda: len(own.webhooks()) > 0, "the webhook is registered", first)
    own.wait(lambda: own.kubectl.get("apiservice", REGISTRATION) is not None, "the API is registered", first)
    registered = own.get("apiservice", REGISTRATION)
    role = own.get("clusterrole", "virtfleet-operator")
    assert [owner["uid"] for owner in registered["metadata"]["ownerReferences"]] == [role["metadata"]["uid"]]
    assert registered["spec"]["caBundle"]

    before = own.webhooks()
    own.install("upgrade", "--set", "operator.replicas=3,node.cpuFrequency=2GHz")
    assert own.get("deployment", "virtfleet-operator")["spec"]["replicas"] == 3
    own.run("rollback", "1")
    assert own.get("deployment", "virtfleet-operator")["spec"]["replicas"] == 2
    assert "cpuFrequency" not in own.get("configmap", "virtfleet-node")["data"]["node.yaml"]
    assert own.webhooks() == before
    assert own.leads_to("192.0.2.1")

    second = own.start_operator("192.0.2.2")
    first.stop()
    own.wait(lambda: own.leads_to("192.0.2.2"), "the Services lead to the next operator", second)
    second.kill()  # the worst that can happen: it puts nothing in order
    own.run("uninstall")

    assert len(own.kubectl.run("get", "crd", "-o", "name").splitlines()) == len(
        list((chart() / "files/crds").iterdir())
    )
    assert (own.kubectl.get("vm", "kept") or {})["metadata"]["uid"] == uid
    assert own.kubectl.get("secret", "virtfleet-ca", SPACE) is not None
    for kind in ("validatingwebhookconfiguration", "mutatingwebhookconfiguration"):
        assert own.kubectl.get(kind, "validation.virtfleet.io") is None
    own.wait(lambda: own.kubectl.get("apiservice", REGISTRATION) is None, "the registration is gone")
    for kind in ("deployment", "daemonset", "service", "clusterrole"):
        left = json.loads(own.kubectl.run("-n", SPACE, "get", kind, "-o", "json"))["items"]
        assert [one for one in left if one["metadata"]["name"].startswith("virtfleet")] == []


def test_what_was_there_before_is_found_again(installation: Installation) -> None:
    own = installation
    own.install("install")
    authority = own.get("secret", "virtfleet-ca")["data"]
    operator = own.start_operator("192.0.2.3")
    own.wait(lambda: own.leads_to("192.0.2.3"), "the Services lead to the new installation", operator)
    assert own.get("secret", "virtfleet-ca")["data"] == authority
    assert own.kubectl.get("vm", "kept") is not None
    operator.stop()
    assert [own.addresses(name) for name in SERVICES] == [[], [], []]  # it ended well, and nobody follows
    own.run("uninstall")


def test_everything_the_chart_can_have_is_taken_by_the_api_server(installation: Installation) -> None:
    values = Path(__file__).with_name("full.yaml")
    foreign = ("certManager.enabled=false", "monitoring.podMonitors=false", "monitoring.rules=false")
    own = installation
    own.run("install", str(chart()), "--values", str(values), "--set", ",".join(foreign))
    workloads = own.kubectl.run("-n", SPACE, "get", "deploy,ds,sts", "-o", "name").split()
    assert {word.split("/")[1] for word in workloads} == {
        "virtfleet-operator",
        "virtfleet-node",
        "virtfleet-libvirt",
        "virtfleet-ovn-central",
        "virtfleet-ovn-node",
    }
    own.run("uninstall")


def test_an_old_kubernetes_is_refused(helm: Helm) -> None:
    with pytest.raises(HelmError, match="incompatible with Kubernetes"):
        helm.render("--kube-version", "v1.19.0")
