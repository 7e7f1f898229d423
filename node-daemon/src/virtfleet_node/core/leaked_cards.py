"""A network card's host side in QEMU that libvirt has forgotten: what a libvirtd leaves that dies within an attach."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

_CHILDREN = 4096


class _Child(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str


class _Children(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    children: Annotated[tuple[_Child, ...], Field(alias="return", max_length=_CHILDREN)]


@dataclass(frozen=True)
class LeakedCard:
    """What is to be taken from QEMU: a device by id, or a host side by id; empty for nothing."""

    device: str = ""
    netdev: str = ""


def parse_children(text: str) -> frozenset[str]:
    """Return the names of an answer to `qom-list`; ValueError when it is none."""
    return frozenset(child.name for child in _Children.model_validate_json(text).children)


def may_be_leaked_card(message: str, alias: str) -> bool:
    """Tell whether QEMU refused a card as it does when its host side, which libvirt names after it, is there."""
    return bool(alias) and f"Duplicate ID '{_netdev(alias)}'" in message


def find_leaked_card(alias: str, known: AbstractSet[str], devices: AbstractSet[str]) -> LeakedCard:
    """Return what keeps a card from being attached that libvirt's live XML (`known` aliases) does not have.

    QEMU would let a host side go that a device uses, so the device is asked back from its guest first.
    """
    if alias in known:
        return LeakedCard()
    return LeakedCard(device=alias) if alias in devices else LeakedCard(netdev=_netdev(alias))


def _netdev(alias: str) -> str:
    return f"host{alias}"
