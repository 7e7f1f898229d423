"""Quantities and frequencies as users write them ("2Gi", "2800MHz"), parsed once into integers.

The JSON form is always a string with a pattern: int-or-string would make Kubernetes 1.20 treat every list of the kind
as atomic under server-side apply.
"""

import re
from decimal import Decimal
from typing import Any, ClassVar, Final, Self

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

_BINARY: Final = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50}
_DECIMAL: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_LARGEST_BYTES: Final = 2**63 - 1  # qcow2, libvirt and Kubernetes all hold sizes in signed 64 bits


class _UnitInt(int):
    """An integer that is written with a unit."""

    pattern: ClassVar[str]
    units: ClassVar[dict[str, int]]
    remedy: ClassVar[str]
    largest: ClassVar[int]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse text such as "2Gi"; ValueError says what to write instead."""
        found = re.fullmatch(cls.pattern, text)
        if not found:
            raise ValueError(f"{text[:40]!r} is not valid: {cls.remedy}")
        number = Decimal(found[1]) * cls.units[found[3] or ""]
        if number != number.to_integral_value() or not 0 < number <= cls.largest:
            raise ValueError(f"{text[:40]!r} is out of range: {cls.remedy}")
        return cls(int(number))

    def __str__(self) -> str:
        """Write the value with the largest unit that divides it."""
        for unit, factor in sorted(self.units.items(), key=lambda item: -item[1]):
            if self % factor == 0:
                return f"{int(self) // factor}{unit}"
        raise AssertionError("every unit table has a factor of one")

    @classmethod
    def _validate(cls, value: object) -> Self:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        raise ValueError(f"{str(value)[:40]} is not a string: {cls.remedy}")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "pattern": cls.pattern, "maxLength": 32}


class Bytes(_UnitInt):
    """A size in bytes, written as a Kubernetes quantity: "20Gi", "512Mi", "1073741824"."""

    pattern = r"^([0-9]{1,19}(\.[0-9]{1,9})?)(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$"
    units: ClassVar[dict[str, int]] = _BINARY | _DECIMAL
    remedy = 'write a size with a unit, such as "512Mi" or "20Gi"'
    largest = _LARGEST_BYTES

    def __str__(self) -> str:
        """Write the value with the largest binary unit that divides it."""
        for unit, factor in sorted(_BINARY.items(), key=lambda item: -item[1]):
            if self % factor == 0:
                return f"{int(self) // factor}{unit}"
        return str(int(self))


class Frequency(_UnitInt):
    """A frequency in hertz, written with a unit: "700MHz", "2.8GHz"."""

    pattern = r"^([0-9]{1,16}(\.[0-9]{1,6})?)(Hz|kHz|MHz|GHz)$"
    units: ClassVar[dict[str, int]] = {"Hz": 1, "kHz": 10**3, "MHz": 10**6, "GHz": 10**9}
    remedy = 'write a frequency with a unit, such as "700MHz" or "3GHz"'
    largest = 10**15


class BitRate(_UnitInt):
    """A rate in bits a second, written with a unit: "100Mbit", "2.5Gbit"."""

    pattern = r"^([0-9]{1,16}(\.[0-9]{1,6})?)(kbit|Mbit|Gbit)$"
    units: ClassVar[dict[str, int]] = {"kbit": 10**3, "Mbit": 10**6, "Gbit": 10**9}
    remedy = 'write a rate with a unit, such as "100Mbit" or "2.5Gbit"'
    largest = 10**13

    def __str__(self) -> str:
        """Write the value with the largest unit that divides it, in parts of a kilobit if none does."""
        for unit, factor in sorted(self.units.items(), key=lambda item: -item[1]):
            if self % factor == 0:
                return f"{int(self) // factor}{unit}"
        return f"{Decimal(int(self)) / 1000:f}kbit"
