"""Dashboards are what Grafana imports, and every query in them is one that Prometheus answers."""

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from prometheus_queries import DASHBOARDS, complaints, unknown

NAMES = sorted(path.stem for path in DASHBOARDS.glob("*.json"))
COLUMNS = 24


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DASHBOARDS / f"{name}.json").read_text())
    return loaded


def queries(dashboard: dict[str, Any]) -> list[str]:
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_there_is_one_for_the_fleet_a_node_and_a_machine() -> None:
    assert NAMES == ["fleet", "machine", "node"]


@pytest.mark.parametrize("name", NAMES)
def test_it_is_one_that_grafana_imports(name: str) -> None:
    dashboard = load(name)
    assert (dashboard["uid"], dashboard["schemaVersion"]) == (f"virtfleet-{name}", 39)
    assert "id" not in dashboard, "Grafana gives the number"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    source = dashboard["templating"]["list"][0]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    for panel in dashboard["panels"]:
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert panel["title"]
            assert panel["targets"]
            assert panel["fieldConfig"]["defaults"]["unit"]


@pytest.mark.parametrize("name", NAMES)
def test_no_panel_lies_over_another(name: str) -> None:
    places = [panel["gridPos"] for panel in load(name)["panels"]]
    assert all(place["x"] + place["w"] <= COLUMNS for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        below = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or below, (one, other)


@pytest.mark.parametrize("name", NAMES)
def test_its_queries_are_parsed_and_ask_for_what_there_is(name: str, tmp_path: Path) -> None:
    dashboard = load(name)
    found = queries(dashboard)
    assert [wrong for query in found for wrong in unknown(query)] == []
    variables = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    assert {word for query in found for word in re.findall(r"\$(\w+)", query)} <= variables
    filled = [re.sub(r"\$\w+", "any", query.replace("$__rate_interval", "5m")) for query in found]
    assert complaints(filled, tmp_path) == ""


@pytest.mark.parametrize("name", NAMES)
def test_its_variables_ask_for_what_there_is(name: str) -> None:
    asked = [variable["definition"] for variable in load(name)["templating"]["list"] if variable["type"] == "query"]
    assert len(asked) == {"fleet": 0, "node": 1, "machine": 2}[name]
    assert [wrong for query in asked for wrong in unknown(query)] == []


@pytest.mark.parametrize("name", NAMES)
def test_its_legends_name_labels_that_its_queries_leave(name: str) -> None:
    for panel in load(name)["panels"]:
        for target in panel.get("targets", ()):
            labels = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = re.findall(r"\bby \(([^)]*)\)", target["expr"])
            if kept:
                assert labels <= set(re.split(r",\s*", kept[0])), target
