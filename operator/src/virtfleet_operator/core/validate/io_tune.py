"""Rules about the limits of disks, the same for a disk and for a class."""

from collections.abc import Iterator
from typing import Final

from virtfleet_api.io_tune import IoTune
from virtfleet_api.virtual_machine import Disk

_UNITS: Final = ("Iops", "BytesPerSecond")
_WAYS: Final = ("total", "read", "write")


def io_tune_problems(where: str, tune: IoTune | None) -> Iterator[str]:
    """Check limits; `where` is the field that holds them."""
    written = tune.to_json_dict() if tune else {}
    for unit in _UNITS:
        yield from _mixed(where, written, unit)
        for way in _WAYS:
            yield from _burst_problems(where, tune, f"{way}{unit}") if tune else ()
    bursts = [name for name in written if name.endswith("Burst")]
    if "burstSeconds" in written and not bursts:
        yield f"{where}.burstSeconds: has no effect without a burst: remove it, or write one such as totalIopsBurst"
    if "group" in written and not written.keys() - {"group", "burstSeconds"}:
        yield f"{where}.group: shares no limit: write one beside it, such as totalIops: 500, or remove the group"


def group_problems(disks: tuple[Disk, ...]) -> Iterator[str]:
    """Check that disks of one group name the same limits: they share one account."""
    first: dict[str, tuple[int, IoTune]] = {}
    for index, disk in enumerate(disks):
        if disk.io_tune is None or disk.io_tune.group is None:
            continue
        other, tune = first.setdefault(disk.io_tune.group, (index, disk.io_tune))
        if tune != disk.io_tune:
            yield (
                f"spec.disks[{index}].ioTune: differs from that of spec.disks[{other}], which is in the same group "
                f'"{disk.io_tune.group}": write the same limits at both, or another group'
            )


def _mixed(where: str, written: dict[str, object], unit: str) -> Iterator[str]:
    parts = [f"{way}{unit}" for way in ("read", "write") if f"{way}{unit}" in written]
    if f"total{unit}" in written and parts:
        yield (
            f"{where}.total{unit}: cannot stand beside {' and '.join(parts)}: "
            f"write the total alone, or read{unit} and write{unit}"
        )


def _burst_problems(where: str, tune: IoTune, name: str) -> Iterator[str]:
    written = tune.to_json_dict()
    fields = {field.alias or key: key for key, field in type(tune).model_fields.items()}
    limit, burst = (getattr(tune, fields[word]) for word in (name, f"{name}Burst"))
    if burst is None:
        return
    if limit is None:
        yield f"{where}.{name}Burst: needs {name}: write the lasting limit beside it, or remove the burst"
    elif burst <= limit:
        yield (
            f"{where}.{name}Burst: {written[f'{name}Burst']} is not above {name}, {written[name]}: "
            "write more, or remove the burst"
        )
