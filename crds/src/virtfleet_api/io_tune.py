"""Limits of a disk's input and output, as users write them: https://libvirt.org/formatdomain.html, <iotune>."""

from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.names import DNS_LABEL_PATTERN
from virtfleet_api.quantity import Bytes

MAX_IOPS: Final = 10**9
"""More than any device does; libvirt itself stops at 10^15."""

Iops = Annotated[int, Field(ge=1, le=MAX_IOPS)]


class IoTune(Model):
    """Limits of a disk. What is absent is not limited. They change while the guest runs."""

    total_iops: Annotated[Iops | None, Field(description="Requests a second, reads and writes together.")] = None
    read_iops: Annotated[Iops | None, Field(description="Reads a second.")] = None
    write_iops: Annotated[Iops | None, Field(description="Writes a second.")] = None
    total_bytes_per_second: Annotated[
        Bytes | None, Field(description='Bytes a second, read and written together, such as "50Mi".')
    ] = None
    read_bytes_per_second: Annotated[Bytes | None, Field(description="Bytes a second that are read.")] = None
    write_bytes_per_second: Annotated[Bytes | None, Field(description="Bytes a second that are written.")] = None
    total_iops_burst: Annotated[Iops | None, Field(description="totalIops for a burst of burstSeconds.")] = None
    read_iops_burst: Annotated[Iops | None, Field(description="readIops for a burst.")] = None
    write_iops_burst: Annotated[Iops | None, Field(description="writeIops for a burst.")] = None
    total_bytes_per_second_burst: Annotated[
        Bytes | None, Field(description="totalBytesPerSecond for a burst of burstSeconds.")
    ] = None
    read_bytes_per_second_burst: Annotated[Bytes | None, Field(description="readBytesPerSecond for a burst.")] = None
    write_bytes_per_second_burst: Annotated[Bytes | None, Field(description="writeBytesPerSecond for a burst.")] = None
    burst_seconds: Annotated[
        int | None, Field(ge=1, le=3600, description="How long a burst may last; 1 by default.")
    ] = None
    group: Annotated[
        str | None,
        Field(
            pattern=DNS_LABEL_PATTERN,
            max_length=63,
            description="Disks of one machine that name the same group share these limits instead of having them each.",
        ),
    ] = None
