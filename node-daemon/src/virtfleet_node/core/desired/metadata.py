"""The one element in a domain's <metadata> that keeps the machine's document and record."""

from typing import Final

from lxml import etree

from virtfleet_api.names import METADATA_NAMESPACE
from virtfleet_node.core.desired.element import Element, add, parse
from virtfleet_node.core.record import Stored

METADATA_PREFIX: Final = "virtfleet"


def add_metadata(domain: Element, stored: Stored) -> None:
    """Write the element into a domain."""
    metadata = add(domain, "metadata")
    element = etree.SubElement(
        metadata, f"{{{METADATA_NAMESPACE}}}machine", nsmap={METADATA_PREFIX: METADATA_NAMESPACE}
    )
    element.text = stored.to_json()


def build_metadata_xml(stored: Stored) -> str:
    """Return the element's content as virDomainSetMetadata takes it: libvirt adds namespace and prefix."""
    element = etree.Element("machine")
    element.text = stored.to_json()
    return etree.tostring(element, encoding="unicode")


def parse_metadata_xml(text: str) -> Stored:
    """Return what the element keeps. Raises ValueError when it is not ours."""
    return Stored.model_validate_json(parse(text).text or "")
