"""Alerts fire when they should and are silent when not, ask for what there is, and are explained."""

from typing import Any

import pytest
import yaml

from prometheus_queries import RULES, complaints, promtool, unknown
from virtfleet_dev.paths import checkout

FOLDER = checkout() / "tests/rules"
RUNBOOKS = checkout() / "docs/runbooks"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}


def cases() -> list[tuple[str, bool]]:
    """Return each case of the alerts' tests: the alert, and whether it fires."""
    files = [yaml.safe_load(path.read_text()) for path in sorted(FOLDER.glob("*.test.yaml"))]
    tried = [case for file in files for test in file["tests"] for case in test["alert_rule_test"]]
    return [(case["alertname"], bool(case["exp_alerts"])) for case in tried]


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should_and_is_silent_when_not() -> None:
    done = promtool("test", "rules", *sorted(FOLDER.glob("*.test.yaml")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_tried_both_ways(alert: str) -> None:
    assert {(alert, True), (alert, False)} <= set(cases())


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_asks_for_what_there_is(alert: str) -> None:
    assert unknown(ALERTS[alert]["expr"]) == []


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_is_wrong_and_how_bad_it_is(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["annotations"].keys() == {"summary", "description"}
    assert rule["labels"]["severity"] in {"critical", "warning"}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_runbook_with_what_to_look_at_and_what_to_do(alert: str) -> None:
    page = (RUNBOOKS / f"{alert}.md").read_text()
    assert page.startswith(f"# {alert}\n")
    assert "## Look\n\n```console\n" in page
    assert "## Do\n\n* " in page
    assert f"[{alert}]({alert}.md) | {ALERTS[alert]['labels']['severity']} |" in (RUNBOOKS / "README.md").read_text()


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    assert {path.stem for path in RUNBOOKS.glob("*.md")} == {*ALERTS, "README"}


def test_a_query_for_what_is_not_there_is_found() -> None:
    assert unknown('virtfleet_nodes{contact="lost"} / virtfleet_machines_running') == ["virtfleet_machines_running"]
    assert unknown('virtfleet_nodes{name="x"}') == ["virtfleet_nodes{name}"]


def test_a_query_that_cannot_be_parsed_is_found(tmp_path: Any) -> None:
    assert "could not parse" in complaints(["sum(virtfleet_nodes"], tmp_path)


def test_queries_of_runbooks_and_the_guide_ask_for_what_there_is(tmp_path: Any) -> None:
    pages = [*RUNBOOKS.glob("*.md"), checkout() / "docs/howto/monitoring.md"]
    blocks = [block for page in pages for block in page.read_text().split("```promql\n")[1:]]
    lines = [line for block in blocks for line in block.split("```")[0].splitlines()]
    queries = [line for line in lines if line and not line.startswith("#")]
    assert len(queries) > len(ALERTS) / 5
    assert [found for query in queries for found in unknown(query)] == []
    assert complaints(queries, tmp_path) == ""
