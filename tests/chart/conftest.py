"""helm 3 and helm 4, and a cluster without anything of virtfleet's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from virtfleet_dev.control_plane import ControlPlane
from virtfleet_dev.helm import Helm
from virtfleet_dev.kube_tools import HELM_3, HELM_4, Release, kube_tools

RELEASES = {"helm 3": HELM_3, "helm 4": HELM_4}


@pytest.fixture(scope="session", params=RELEASES)
def release(request: pytest.FixtureRequest) -> Release:
    return RELEASES[request.param]


@pytest.fixture(scope="session")
def helm(release: Release) -> Helm:
    return Helm(kube_tools(release).helm)


@pytest.fixture(scope="session")
def helm_4() -> Helm:
    return Helm(kube_tools(HELM_4).helm)


@pytest.fixture(scope="session")
def empty_cluster(scratch: Path) -> Iterator[ControlPlane]:
    control_plane = ControlPlane(scratch / "chart")
    try:
        control_plane.up()
        yield control_plane
    finally:
        control_plane.down()
