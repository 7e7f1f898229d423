"""The kind VMAddress: an address of a switch that a machine's card has. The API server keeps two from having it.

The object's name is made from switch and address, so that whoever creates it first has the address, whatever happens
to operators in between (docs/adr/0018).
"""

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN, UID_PATTERN
from virtfleet_api.network import IP_PATTERN
from virtfleet_api.resource import PrinterColumn, Resource


class AddressHolder(Model):
    """The card that has the address."""

    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="The machine's namespace.")]
    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="The machine's name.")]
    uid: Annotated[str, Field(pattern=UID_PATTERN, max_length=36, description="The machine's UID.")]
    interface: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name of the card.")]


class VMAddressSpec(Model):
    """Who has which address. Written by the operator alone."""

    switch: Annotated[
        str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="VirtualSwitch that the address is of.")
    ]
    address: Annotated[str, Field(pattern=IP_PATTERN, max_length=45, description="The address.")]
    holder: Annotated[AddressHolder, Field(description="The card that has it.")]
    released_at: Annotated[
        datetime | None,
        Field(description="When the card gave it back; nobody is given it again before the cool-down is over."),
    ] = None


class VMAddress(Resource):
    """An address of a VirtualSwitch and the card that has it, or had it last."""

    plural: ClassVar[str] = "vmaddresses"
    short_names: ClassVar[tuple[str, ...]] = ("vmaddr",)
    namespaced: ClassVar[bool] = False
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Switch", json_path=".spec.switch"),
        PrinterColumn(name="Address", json_path=".spec.address"),
        PrinterColumn(name="Namespace", json_path=".spec.holder.namespace"),
        PrinterColumn(name="Machine", json_path=".spec.holder.name"),
        PrinterColumn(name="Interface", json_path=".spec.holder.interface"),
        PrinterColumn(name="Released", type="date", json_path=".spec.releasedAt"),
    )

    kind: str = "VMAddress"
    spec: VMAddressSpec
