"""Limits of a network card, as users write them."""

from typing import Annotated

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.quantity import BitRate, Bytes


class Rate(Model):
    """A limit of one direction."""

    average: Annotated[BitRate, Field(description='Bits a second over time, such as "100Mbit".')]
    burst: Annotated[
        Bytes | None,
        Field(
            description='Bytes that may pass at full speed after a pause, such as "1Mi"; a tenth of a second\'s '
            "worth of average by default."
        ),
    ] = None


class Bandwidth(Model):
    """Limits of a network card. A direction that is absent is not limited. They change while the guest runs."""

    inbound: Annotated[Rate | None, Field(description="Towards the guest.")] = None
    outbound: Annotated[Rate | None, Field(description="From the guest.")] = None
