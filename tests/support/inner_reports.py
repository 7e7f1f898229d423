"""A plugin of pytest: one line of JSON for each test that has ended, for whoever reads the output."""

import json

import pytest

MARK = "\x1einner "

_reports: dict[str, list[pytest.TestReport]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _reports.setdefault(report.nodeid, []).append(report)


def pytest_runtest_logfinish(nodeid: str) -> None:
    phases = _reports.pop(nodeid, [])
    bad = [phase for phase in phases if phase.outcome != "passed"]
    text = "\n".join(part for phase in bad for part in (phase.longreprtext, *(f"{n}:\n{t}" for n, t in phase.sections)))
    outcome = bad[0].outcome if bad else "passed" if phases else "not run"
    print(f"\n{MARK}{json.dumps({'case': nodeid, 'outcome': outcome, 'text': text})}", flush=True)  # noqa: T201
