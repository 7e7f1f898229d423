"""The kind VMClass: a size that machines can name."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from virtfleet_api.base import Model
from virtfleet_api.compute import Cpu, Memory
from virtfleet_api.conditions import Condition
from virtfleet_api.io_tune import IoTune
from virtfleet_api.resource import PrinterColumn, Resource


class ClassUpdates(StrEnum):
    """What a change of the class does to machines that run."""

    AT_RESTART = "AtRestart"
    LIVE = "Live"


class VMClassSpec(Model):
    """Defaults for what a machine leaves out."""

    cpu: Annotated[Cpu, Field(description="Virtual CPUs.")] = Cpu()
    memory: Annotated[Memory, Field(description="Guest memory.")] = Memory()
    io_tune: Annotated[IoTune | None, Field(description="Limits of each disk that has no ioTune of its own.")] = None
    updates: Annotated[
        ClassUpdates,
        Field(
            description="AtRestart: a machine keeps what it was started with until it is restarted. Live: a change of "
            "the class changes running machines wherever QEMU can."
        ),
    ] = ClassUpdates.AT_RESTART


class VMClassStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class VMClass(Resource):
    """A size that machines can name with `className`."""

    plural: ClassVar[str] = "vmclasses"
    short_names: ClassVar[tuple[str, ...]] = ("vmc",)
    namespaced: ClassVar[bool] = False
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Cores", type="integer", json_path=".spec.cpu.cores"),
        PrinterColumn(name="Memory", json_path=".spec.memory.guest"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "VMClass"
    spec: VMClassSpec
    status: VMClassStatus = VMClassStatus()
