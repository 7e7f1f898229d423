"""Reports to publish."""

from collections.abc import Callable

import pytest

from simulated_node import build_node_report
from virtfleet_api.image import ImageReport
from virtfleet_api.report import MachineReport, NodeReport, Phase
from virtfleet_api.vm_image import ImagePhase


def uid(number: int) -> str:
    return f"00000000-0000-0000-0000-{number:012d}"


@pytest.fixture
def node() -> NodeReport:
    return build_node_report("node-a")


@pytest.fixture
def machine() -> Callable[..., MachineReport]:
    def build(number: int, phase: Phase = Phase.RUNNING) -> MachineReport:
        return MachineReport(uid=uid(number), namespace="shop", name=f"web-{number}", phase=phase)

    return build


@pytest.fixture
def image() -> Callable[..., ImageReport]:
    def build(number: int, phase: ImagePhase = ImagePhase.READY) -> ImageReport:
        return ImageReport(uid=uid(number), namespace="shop", name=f"disk-{number}", phase=phase)

    return build
