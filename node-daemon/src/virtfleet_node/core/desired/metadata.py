"""The one element in a domain's <metadata> that keeps the machine's document and record."""

from typing import Final

from lxml import etree

from virtfleet_api.names import METADATA_NAMESPACE
from virtfleet_node.core.desired.element import Element, parse, section
from virtfleet_node.core.record import Stored

METADATA_PREFIX: Final = "virtfleet"

_TAG: Final = f"{{{METADATA_NAMESPACE}}}machine"


def add_metadata(domain: Element, stored: Stored) -> None:
    """Write the element into a domain."""
    metadata = section(domain, "metadata")
    element = etree.SubElement(metadata, _TAG, nsmap={METADATA_PREFIX: METADATA_NAMESPACE})
    element.text = stored.to_json()


def with_metadata(domain: Element, stored: Stored) -> Element:
    """Return the description of a domain with the element in the place of the one that it has."""
    for found in domain.findall(f"metadata/{_TAG}"):
        section(domain, "metadata").remove(found)
    add_metadata(domain, stored)
    return domain


def build_metadata_xml(stored: Stored) -> str:
    """Return the element's content as virDomainSetMetadata takes it: libvirt adds namespace and prefix."""
    element = etree.Element("machine")
    element.text = stored.to_json()
    return etree.tostring(element, encoding="unicode")


def parse_metadata_xml(text: str) -> Stored:
    """Return what the element keeps. Raises ValueError when it is not ours."""
    return Stored.model_validate_json(parse(text).text or "")
