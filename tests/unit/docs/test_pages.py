"""What pages say that a program can check: proofs that exist, configurations that are accepted."""

import re
from pathlib import Path

import pytest
import yaml

from virtfleet_dev.paths import checkout
from virtfleet_node.config import read_config
from virtfleet_operator.settings import read_settings

INSTALL = checkout() / "docs/howto/install-by-hand.md"
READERS = {"# /etc/virtfleet/operator.yaml": read_settings, "# /etc/virtfleet/node.yaml": read_config}


@pytest.mark.parametrize("page", ["features.md", "threat-model.md"])
def test_every_proof_exists(page: str) -> None:
    proofs = re.findall(r"`(tests/[^`]+)`", (checkout() / "docs" / page).read_text())
    assert proofs
    assert [proof for proof in proofs if not _is_there(proof)] == []


def _is_there(proof: str) -> bool:
    files, _, test = proof.partition("::")
    found = list(checkout().glob(files))
    return bool(found) and (not test or any(f"def {test}(" in file.read_text() for file in found))


@pytest.mark.parametrize("heading", READERS)
def test_the_configurations_of_the_installation_are_accepted(heading: str, tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", INSTALL.read_text(), re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(heading)]
    path = tmp_path / "config.yaml"
    path.write_text(block)
    READERS[heading](path)


def test_the_manifests_of_the_installation_are_yaml_of_a_kind() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", INSTALL.read_text(), re.DOTALL)
    assert [block for block in blocks if not block.startswith("#")] == []
    page = INSTALL.with_name("access.md")
    others = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
    assert [other["kind"] for other in others] == ["Role"]
