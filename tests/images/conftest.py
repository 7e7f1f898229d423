"""The images of this checkout, built by buildah once, and a container of each."""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from container_images import ORDER
from virtfleet_dev.containers import TARGETS, Buildah, Container, Image, build_images, locked_folder
from virtfleet_dev.paths import checkout


@pytest.fixture(scope="session")
def revision() -> str:
    git = ["git", "-C", str(checkout()), "rev-parse", "HEAD"]
    return subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory, revision: str) -> dict[str, Image]:
    assert revision  # the one that is built; there may be another commit before the tests have run
    return {image.target: image for image in build_images(ORDER, tmp_path_factory.mktemp("images"))}


@pytest.fixture(scope="session")
def containers(images: dict[str, Image]) -> Iterator[dict[str, Container]]:
    with locked_folder() as folder:
        builder = Buildah(folder, ORDER)
    with ExitStack() as stack:
        # By id: another checkout on this machine may have built images of the same names meanwhile.
        yield {target: stack.enter_context(builder.container(images[target].id)) for target in TARGETS}


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(target: str, containers: dict[str, Container]) -> Path:
    return containers[target].root
