from collections.abc import Iterator
from pathlib import Path

import pytest

from ovn_rig import OvnRig
from virtfleet_dev.cluster import leftovers


@pytest.fixture(scope="session")
def running_rig(scratch: Path) -> Iterator[OvnRig]:
    rig = OvnRig(scratch / "ovn")
    try:
        rig.up()
        yield rig
    finally:
        rig.down()
    assert leftovers(rig.fabric.id) == ()


@pytest.fixture
def rig(running_rig: OvnRig) -> Iterator[OvnRig]:
    """Two nodes without a network; what a test adds to the northbound database is removed after it."""
    yield running_rig
    running_rig.remove_probes()
    for switch in running_rig.nbctl("--bare", "--columns=name", "list", "logical_switch").split():
        running_rig.nbctl("ls-del", switch)
    for group in running_rig.nbctl("--bare", "--columns=name", "list", "port_group").split():
        running_rig.nbctl("pg-del", group)
