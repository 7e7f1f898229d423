"""What pages tell users to type is typed, and answers as they say; what they tell to apply is accepted."""

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from doc_blocks import read_blocks, read_steps, shows
from fleet import Fleet
from virtfleet_dev.paths import checkout

PAGES = sorted([checkout() / "README.md", *checkout().glob("docs/*.md"), *checkout().glob("docs/howto/*.md")])
STEP_SECONDS = 180


def name(page: Path) -> str:
    return str(page.relative_to(checkout()))


def manifests(page: Path) -> list[dict[str, Any]]:
    """Return the manifests of our kinds that a page shows whole."""
    texts = [block.text for block in read_blocks(page) if block.language == "yaml" and "\nkind: " in block.text]
    parts = [part for text in texts for part in yaml.safe_load_all(re.sub(r"sha256:<.*?>", f"sha256:{'0' * 64}", text))]
    return [part for part in parts if part["apiVersion"].startswith("virtfleet.io/")]


@pytest.mark.parametrize("page", [page for page in PAGES if manifests(page)], ids=name)
def test_what_is_applied(fleet: Fleet, page: Path) -> None:
    for manifest in manifests(page):
        manifest["metadata"].pop("namespace", None)  # a tenant's, which is not there
        manifest["metadata"]["name"] += "-of-a-page"
        fleet.cluster.kubectl.run("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(manifest))


@pytest.mark.parametrize("page", [page for page in PAGES if read_steps(page)], ids=name)
def test_what_is_typed(fleet: Fleet, page: Path) -> None:
    folder = fleet.cluster.directory / "bin"
    environment = {
        **os.environ,
        "KUBECONFIG": str(fleet.cluster.kubectl.kubeconfig),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    for step in read_steps(page):
        done = subprocess.run(
            ["bash", "-ec", step.command],
            cwd=checkout(),
            env=environment,
            capture_output=True,
            text=True,
            timeout=STEP_SECONDS,
            check=False,
        )
        printed = done.stdout + done.stderr
        refused = any(line.startswith(("Error", "error")) for line in step.printed)
        assert bool(done.returncode) is refused, f"{step.command}\n{printed}"
        missing = [line for line in step.printed if not shows(printed, line)]
        assert missing == [], f"{step.command}\n{printed}"
    fleet.kernel("tiny")  # pages clean up all there is
    fleet.wait_ready("tiny", "vmimage")
