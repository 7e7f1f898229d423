"""The locks of the images are parts of the one lock, whole, and of this pyproject.toml."""

import re
import tomllib

import pytest

from virtfleet_dev.paths import checkout

_ENTRY = re.compile(r"^([\w.-]+)==(\S+)[^\n]*\n((?: {4}--hash=\S+(?: \\)?\n)+)", re.MULTILINE)
_NAME = re.compile(r"[\w.-]+")


def entries(name: str) -> dict[tuple[str, str], frozenset[str]]:
    """Return the hashes of each package and version that a lock names."""
    text = (checkout() / name).read_text()
    found = {
        (package, pinned): frozenset(re.findall(r"sha256:\w+", hashes))
        for package, pinned, hashes in _ENTRY.findall(text)
    }
    assert len(found) == len(re.findall(r"^[\w.-]+==", text, re.MULTILINE))
    return found


def packages(name: str) -> set[str]:
    """Return the packages that a lock names."""
    return {package for package, _ in entries(name)}


def wanted(target: str) -> set[str]:
    """Return what pyproject.toml names for a target."""
    project = tomllib.loads((checkout() / "pyproject.toml").read_text())
    if target == "build":
        named = project["dependency-groups"]["images"]
    else:
        named = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"][target]]
    return {match[0] for text in named if (match := _NAME.match(text))}


@pytest.mark.parametrize("target", ["operator", "node", "build"])
def test_an_image_s_lock_is_part_of_the_lock(target: str) -> None:
    assert entries(f"containers/{target}.lock").items() <= entries("requirements.lock").items(), "run make lock"
    assert wanted(target) <= packages(f"containers/{target}.lock"), "run make lock"


@pytest.mark.parametrize("target", ["operator", "node"])
def test_what_tests_and_builds_need_is_in_no_image(target: str) -> None:
    tools = {"hatchling", "hypothesis", "mypy", "pytest", "ruff", "uv"}
    assert not packages(f"containers/{target}.lock") & tools
