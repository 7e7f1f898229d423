"""Values that cannot be meant are refused, with words that say which; every value is described."""

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from virtfleet_dev.helm import Helm, HelmError, chart

WRONG = {
    "image.regsitry=a": "regsitry",
    "image.tag=a b": "image.tag",
    "image.pullPolicy=Sometimes": "image.pullPolicy",
    "image.operator.digest=abc": "image.operator.digest",
    "operator.replicas=0": "operator.replicas",
    "operator.replicas=two": "operator.replicas",
    "operator.service.clusterIP=virtfleet": "operator.service.clusterIP",
    "operator.lease.durationSeconds=1": "operator.lease.durationSeconds",
    "operator.placement.strategy=Random": "operator.placement.strategy",
    "operator.network.operatorAddresses={a}": "operator.network.operatorAddresses.0",
    "operator.devices[0].device=a": "selectors",
    "operator.resources.request.cpu=1": "request",
    "operator.nodeSelector.a b=c": "a b",
    "node.ports.operators=80": "node.ports.operators",
    "node.pools[0].name=default,node.pools[0].path=relative": "node.pools.0.path",
    "node.pools=null": "pools",
    "node.cpuFrequency=2.8": "node.cpuFrequency",
    "node.hostPaths.state=var/lib": "node.hostPaths.state",
    "node.kubeletDirectory=/var/lib/kubelet/": "node.kubeletDirectory",
    "libvirt.mode=Pod": "libvirt.mode",
    "libvirt.hostPaths.state=lib": "libvirt.hostPaths.state",
    "volumes.image=a b": "volumes.image",
    "volumes.enable=true": "enable",
    "node.updateStrategy.type=Recreate": "node.updateStrategy.type",
    "ovn.mode=bundled": "ovn.mode",
    "ovn.mode=Bundled": "ovn.central.service.clusterIP is empty: OVN takes addresses, no DNS names.",
    "ovn.mode=External": "ovn.external.northbound and ovn.external.southbound say where your databases are",
    "ovn.mode=External,ovn.external.northbound=tcp:192.0.2.1:6641": "ovn.external.northbound",
    "certManager.duration=10y": "certManager.duration",
    "monitoring.rules=yes please": "monitoring.rules",
    "monitoring.runbookUrl=docs": "monitoring.runbookUrl",
    "networkPolicy.enabled=false": "networkPolicy",
}


@pytest.mark.parametrize(("given", "named"), WRONG.items(), ids=WRONG)
def test_a_wrong_value_is_refused_by_its_name(helm_4: Helm, given: str, named: str) -> None:
    with pytest.raises(HelmError) as refused:
        helm_4.render("--set", given)
    # It writes a path with slashes.
    assert named in str(refused.value) or "/" + named.replace(".", "/") in str(refused.value)


def test_old_and_new_helm_refuse_the_same(helm: Helm) -> None:
    # All at once, but for a value that is missing, and for what only the templates refuse.
    asked = {
        given: named
        for given, named in WRONG.items()
        if not given.startswith(("node.pools=null", "ovn.mode=E", "ovn.mode=B"))
    }
    with pytest.raises(HelmError) as refused:
        helm.render(*(word for given in asked for word in ("--set", given)))
    for named in asked.values():
        assert named in str(refused.value) or "/" + named.replace(".", "/") in str(refused.value), named


def schemas(schema: dict[str, Any], path: str = "values") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from schemas(inner, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from schemas(schema[name], f"{path}.{name}")
    for name, inner in schema.get("definitions", {}).items():
        yield from schemas(inner, name)


def test_every_value_is_described_and_nothing_else_is_taken() -> None:
    schema = json.loads((chart() / "values.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    for path, found in schemas(schema):
        assert found.get("description"), f"{path} has no description"
        if "properties" in found:
            assert found["additionalProperties"] is False, f"{path} takes anything"


def test_every_value_has_a_default() -> None:
    schema = json.loads((chart() / "values.schema.json").read_text())
    values = yaml.safe_load((chart() / "values.yaml").read_text())

    def missing(schema: dict[str, Any], found: Any, path: str) -> Iterator[str]:
        for name, inner in schema.get("properties", {}).items():
            if not isinstance(found, dict) or name not in found:
                yield f"{path}.{name}"
            else:
                yield from missing(inner, found[name], f"{path}.{name}")

    assert set(missing(schema, values, "")) == {".global"}
