"""Virtual CPUs and memory, as machines and classes ask for them."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import Field

from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.quantity import Bytes, Frequency

MAX_VCPUS: Final = 512
"""As many as QEMU's q35 machine takes without an IOMMU of its own is 255; libvirt's limit is checked on the node."""

CPU_SET_PATTERN: Final = r"^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$"
"""Host CPUs as the kernel lists them, such as "0-3,8"."""

MAX_SHARES: Final = 1_000_000


class HugepageSize(StrEnum):
    """Sizes of huge pages on x86."""

    MEBIBYTES_2 = "2Mi"
    GIBIBYTES_1 = "1Gi"


class Cpu(Model):
    """Virtual CPUs. What is absent comes from the VMClass, then from the default."""

    cores: Annotated[int | None, Field(ge=1, le=MAX_VCPUS, description="Cores per socket; 1 by default.")] = None
    sockets: Annotated[int | None, Field(ge=1, le=64, description="Sockets; 1 by default.")] = None
    threads: Annotated[int | None, Field(ge=1, le=8, description="Threads per core; 1 by default.")] = None
    max_vcpus: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_VCPUS,
            description="vCPUs that the running guest may be given, by more cores, without a restart; those it starts "
            "with by default.",
        ),
    ] = None
    model: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
            max_length=64,
            description="host-model (default), host-passthrough, or the name of a libvirt CPU model.",
        ),
    ] = None
    limit: Annotated[
        Frequency | None,
        Field(description='Most that all vCPUs together get, such as "3GHz": 2 vCPUs get 1.5 GHz each.'),
    ] = None
    reservation: Annotated[
        Frequency | None,
        Field(description='What the machine gets when it wants it, however busy its node is, such as "700MHz".'),
    ] = None
    shares: Annotated[
        int | None,
        Field(
            ge=1,
            le=MAX_SHARES,
            description="Weight of the machine when CPUs are short; 1000 per vCPU by default.",
        ),
    ] = None
    dedicated: Annotated[
        bool | None, Field(description="Give each vCPU a CPU of the host that no other machine uses.")
    ] = None
    affinity: Annotated[
        dict[str, Annotated[str, Field(pattern=CPU_SET_PATTERN, max_length=256)]] | None,
        Field(
            max_length=MAX_VCPUS,
            description='CPUs of the host by vCPU, such as {"0": "0-3"}; the others run where the node sees fit.',
            json_schema_extra=ATOMIC,
        ),
    ] = None


class Memory(Model):
    """Guest memory."""

    guest: Annotated[Bytes | None, Field(description='Memory of the guest, such as "2Gi".')] = None
    max: Annotated[
        Bytes | None,
        Field(description="Memory that the running guest may be given without a restart; `guest` by default."),
    ] = None
    hugepages: Annotated[
        HugepageSize | None, Field(description="Back the memory by huge pages of this size, 2Mi or 1Gi.")
    ] = None
