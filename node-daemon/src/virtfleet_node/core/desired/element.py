"""One way to write an XML element, so that configurators read like the XML they make; and one to read XML."""

from typing import Final

from lxml import etree

Element = etree._Element  # noqa: SLF001 -- lxml gives its element class no public name

_PARSER: Final = etree.XMLParser(resolve_entities=False, no_network=True)


def parse(text: str | bytes) -> Element:
    """Read XML of others: nothing is expanded, and nothing fetched; etree.XMLSyntaxError."""
    return etree.fromstring(text, _PARSER)


def add(parent: Element, tag: str, text: str | None = None, **attributes: str | int) -> Element:
    """Append an element and return it. A trailing underscore in an attribute's name is dropped (`type_`)."""
    child = etree.SubElement(parent, tag, {name.rstrip("_"): str(value) for name, value in attributes.items()})
    child.text = text
    return child


def section(parent: Element, tag: str) -> Element:
    """Return the element of which there is one, such as <cputune>, made when missing."""
    found = parent.find(tag)
    return add(parent, tag) if found is None else found


def devices(domain: Element) -> Element:
    """Return the domain's <devices>, made when missing."""
    return section(domain, "devices")
