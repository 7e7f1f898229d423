"""Whom files are given to that QEMU opens by itself."""

import pytest
from lxml import etree

from virtfleet_node.core.desired.guest import DomainType
from virtfleet_node.hypervisor.probe import read_qemu_user

APPARMOR = "<secmodel><model>apparmor</model><doi>0</doi></secmodel>"


def dac(label: str) -> str:
    labels = "".join(f"<baselabel type='{kind}'>{label}</baselabel>" for kind in ("kvm", "qemu"))
    return f"<secmodel><model>dac</model><doi>0</doi>{labels}</secmodel>"


@pytest.mark.parametrize(
    ("models", "user"),
    [
        (APPARMOR + dac("+64055:+110"), 64055),
        (dac("+0:+0"), 0),
        (APPARMOR, None),
        ("", None),
        (dac("qemu:kvm"), None),
        ("<secmodel><model>dac</model><baselabel type='xen'>+1:+1</baselabel></secmodel>", None),
    ],
)
def test_the_user_is_read_from_libvirts_capabilities(models: str, user: int | None) -> None:
    capabilities = etree.fromstring(f"<capabilities><host>{models}</host></capabilities>")
    assert {read_qemu_user(capabilities, kind) for kind in (DomainType.KVM, DomainType.QEMU)} == {user}
