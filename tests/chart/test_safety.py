"""checkov finds nothing in the manifests but what is meant, for a reason that is written down."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from charts import FULL, NEW
from virtfleet_dev.chart_checkers import checker
from virtfleet_dev.helm import Helm


def place(resource: str) -> str:
    """Return kind and name: what checkov calls a resource has its namespace, and for a pod of others its labels."""
    kind, _, name = resource.split(".", 2)
    return f"{kind}.{re.split(r'[.]app[.]kubernetes', name)[0]}"


def test_checkov_finds_what_is_meant_and_nothing_else(helm_4: Helm, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(helm_4.render(*NEW, "--values", str(FULL), "--set", "crds.enabled=false"))
    command = [checker("checkov"), "--directory", tmp_path, "--framework", "kubernetes", "--compact", "--skip-download"]
    done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["summary"]["passed"] > 300, done.stderr
    found = {(check["check_id"], place(check["resource"])) for check in report["results"]["failed_checks"]}
    exceptions = yaml.safe_load(Path(__file__).with_name("exceptions.yaml").read_text())
    assert all(entry["why"].strip() for entry in exceptions.values())
    assert found == {(check, where) for check, entry in exceptions.items() for where in entry["where"]}
