"""`python -m virtfleet_dev.dashboards write|check`: the chart's dashboards.

Their JSON is Grafana's classic model, which every Grafana from version 10 on reads.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any, Final

from virtfleet_dev.dashboards.fleet import FLEET
from virtfleet_dev.dashboards.machine import MACHINE
from virtfleet_dev.dashboards.node import NODE
from virtfleet_dev.dashboards.panel import Panel
from virtfleet_dev.paths import checkout

_SCHEMA_VERSION: Final = 39
_COLUMNS: Final = 24
_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}

_VARIABLES: Final[dict[str, dict[str, str]]] = {
    "fleet": {},
    "node": {"node": "label_values(virtfleet_node_info, node)"},
    "machine": {
        "namespace": "label_values(virtfleet_node_machine_phase, namespace)",
        "machine": 'label_values(virtfleet_node_machine_phase{namespace="$namespace"}, machine)',
    },
}
_SECTIONS: Final = {"fleet": FLEET, "node": NODE, "machine": MACHINE}


def build(name: str) -> dict[str, Any]:
    """Return a dashboard as Grafana imports it."""
    return {
        "uid": f"virtfleet-{name}",
        "title": f"virtfleet / {name.capitalize()}",
        "tags": ["virtfleet"],
        "schemaVersion": _SCHEMA_VERSION,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [
            {"type": "dashboards", "title": "virtfleet", "tags": ["virtfleet"], "asDropdown": False, "keepTime": True}
        ],
        "templating": {"list": [_data_source(), *(_variable(*item) for item in _VARIABLES[name].items())]},
        "panels": list(_panels(_SECTIONS[name])),
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "refresh": 1}


def _variable(name: str, query: str) -> dict[str, Any]:
    several = name == "node"
    return {
        "name": name,
        "label": name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": several,
        "includeAll": several,
    }


def _panels(sections: dict[str, tuple[Panel, ...]]) -> Iterator[dict[str, Any]]:
    """Yield rows and panels, from left to right and down."""
    number = y = 0
    for title, panels in sections.items():
        number += 1
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "panels": []} | {
            "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": y}
        }
        x, y = 0, y + 1
        for panel in panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + panel.height
            number += 1
            yield _panel(panel, number) | {"gridPos": {"h": panel.height, "w": panel.width, "x": x, "y": y}}
            x += panel.width
        y += panels[-1].height


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    instant = panel.type != "timeseries"
    defaults: dict[str, Any] = {"unit": panel.unit, "color": {"mode": "palette-classic"}, "custom": {}}
    if panel.thresholds:
        defaults |= {"thresholds": panel.thresholds, "color": {"mode": "thresholds"}}
    if panel.unit == "percentunit":
        defaults |= {"min": 0, "max": 1}
    if panel.type == "timeseries":
        defaults |= {"min": 0}
        defaults["custom"] = {
            "fillOpacity": 20 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
            "showPoints": "never",
        }
    return {
        "id": number,
        "type": panel.type,
        "title": panel.title,
        "datasource": _SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": list(_overrides(panel))},
        "options": _options(panel),
        "targets": [
            {"refId": chr(65 + place), "datasource": _SOURCE, "expr": query, "legendFormat": legend or "__auto"}
            | ({"instant": True, "range": False} if instant else {"range": True})
            for place, (query, legend) in enumerate(panel.queries)
        ],
    }


def _overrides(panel: Panel) -> Iterator[dict[str, Any]]:
    """What the host has is a line above the stack, not a part of it."""
    for _, legend in panel.queries:
        if panel.stacked and legend.endswith("of the host"):
            yield {
                "matcher": {"id": "byName", "options": legend},
                "properties": [
                    {"id": "custom.stacking", "value": {"mode": "none", "group": "A"}},
                    {"id": "custom.fillOpacity", "value": 0},
                    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [10, 10]}},
                ],
            }


def _options(panel: Panel) -> dict[str, Any]:
    reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    if panel.type == "stat":
        mode = {"textMode": panel.text or "value", "colorMode": "value", "graphMode": "none"}
        return mode | {"justifyMode": "auto", "orientation": "auto", "reduceOptions": reduce}
    if panel.type == "bargauge":
        return {"displayMode": "basic", "orientation": "horizontal", "showUnfilled": True, "reduceOptions": reduce}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def main() -> None:
    """Run the command line; exit status 1 says that a dashboard is out of date."""
    parser = argparse.ArgumentParser(description="Dashboards for Grafana.")
    parser.add_argument("act", choices=["write", "check"], help="write them, or say which are out of date")
    folder = checkout() / "charts/virtfleet/files/dashboards"
    act = parser.parse_args().act
    for name in _SECTIONS:
        path, text = folder / f"{name}.json", json.dumps(build(name), indent=1) + "\n"
        if act == "write":
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"charts/virtfleet/files/dashboards/{name}.json is out of date: run `make generate` and commit it")


if __name__ == "__main__":
    main()
