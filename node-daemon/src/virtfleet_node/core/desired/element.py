"""One way to write an XML element, so that configurators read like the XML they make."""

from lxml import etree

Element = etree._Element  # noqa: SLF001 -- lxml gives its element class no public name


def add(parent: Element, tag: str, text: str | None = None, **attributes: str | int) -> Element:
    """Append an element and return it. A trailing underscore in an attribute's name is dropped (`type_`)."""
    child = etree.SubElement(parent, tag, {name.rstrip("_"): str(value) for name, value in attributes.items()})
    child.text = text
    return child


def devices(domain: Element) -> Element:
    """Return the domain's <devices>, made when missing."""
    found = domain.find("devices")
    return add(domain, "devices") if found is None else found
