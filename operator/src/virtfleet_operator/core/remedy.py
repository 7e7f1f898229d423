"""Sentences for what pydantic refuses: which field, what is wrong, what to write instead.

One entry for each error type that the models of the API can produce; `tests/unit/manifests` holds the manifests that
provoke them.
"""

import difflib
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from virtfleet_api.compute import CPU_SET_PATTERN
from virtfleet_api.device import (
    DEVICE_CLASS_PATTERN,
    MEDIATED_TYPE_PATTERN,
    PCI_ADDRESS_PATTERN,
    PCI_CLASS_PATTERN,
    PCI_ID_PATTERN,
)
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN, UID_PATTERN
from virtfleet_api.network import CIDR_PATTERN, IP_PATTERN
from virtfleet_api.pool import OVERCOMMIT_PATTERN, POOL_PATH_PATTERN, WATERMARK_PATTERN
from virtfleet_api.scheduling import LABEL_KEY_PATTERN, LABEL_VALUE_PATTERN
from virtfleet_api.security_group import SHARED_WITH_PATTERN
from virtfleet_api.virtual_switch import ADDRESS_RANGE_PATTERN, INTERFACE_PATTERN, VLANS_PATTERN
from virtfleet_operator.core.verdict import quote

_PLAIN_KEY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")

PATTERN_REMEDIES: Final[Mapping[str, str]] = {
    DNS_LABEL_PATTERN: 'write lower-case letters, digits and "-", such as "data-1"',
    UID_PATTERN: 'write a UID, such as "123e4567-e89b-42d3-a456-426614174000"',
    DNS_SUBDOMAIN_PATTERN: 'write lower-case letters, digits, "-" and ".", such as "debian-12"',
    r"^([1-9][0-9]{0,4})(m|h|d|w)$": 'write a number and m, h, d or w, such as "14d"',
    r"^https?://[!-~]+$": 'write an http or https address without spaces, such as "https://example.org/disk.qcow2"',
    r"^sha256:[0-9a-f]{64}$": 'write "sha256:" and 64 lower-case hexadecimal digits, as sha256sum prints them',
    r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$": 'write six pairs of hexadecimal digits, such as "52:54:00:12:34:56"',
    r"^(pc-)?(q35|i440fx)(-[0-9.]+)?$": 'write "q35", or a version of it such as "pc-q35-7.2"',
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": 'write "host-model", "host-passthrough" or a model such as "Skylake-Server"',
    r"^[ -~]*$": "write printable ASCII on one line",
    r"^[1-9][0-9]?(\.[0-9]{1,2})?$": 'write a number from 1 to 99.99 in quotes, such as "4"',
    r"^[1-9](\.[0-9]{1,2})?$": 'write a number from 1 to 9.99 in quotes, such as "1.5"',
    OVERCOMMIT_PATTERN: 'write a number from 1 to 999.99 in quotes, such as "2.5"',
    WATERMARK_PATTERN: 'write a share from 1% to 100%, such as "90%"',
    IP_PATTERN: 'write an IP address, such as "10.1.0.7"',
    CIDR_PATTERN: 'write a range of addresses, such as "10.1.0.0/24"',
    ADDRESS_RANGE_PATTERN: 'write an address or a range, such as "10.1.0.2-10.1.0.9"',
    INTERFACE_PATTERN: 'write the name of a network device, such as "bond0"',
    VLANS_PATTERN: 'write VLANs and ranges of them, such as "100-199,300"',
    SHARED_WITH_PATTERN: 'write the name of a namespace, or "*" for all',
    POOL_PATH_PATTERN: 'write a path from the root, without "..", such as "/var/lib/virtfleet/pools/fast"',
    CPU_SET_PATTERN: 'write CPUs of the host and ranges of them, such as "0-3,8"',
    DEVICE_CLASS_PATTERN: 'write a vendor and a model, such as "nvidia.com/A10"',
    PCI_ADDRESS_PATTERN: 'write a PCI address as lspci -D prints it, such as "0000:81:00.0"',
    PCI_ID_PATTERN: 'write four hexadecimal digits, such as "10de"',
    PCI_CLASS_PATTERN: 'write two, four or six hexadecimal digits, such as "0302"',
    MEDIATED_TYPE_PATTERN: 'write a type of mediated devices, such as "nvidia-63"',
    LABEL_KEY_PATTERN: 'write a label name, such as "zone" or "example.org/zone"',
    LABEL_VALUE_PATTERN: 'write at most 63 letters, digits, "-", "_" and ".", such as "east"',
}
"""What to write for each pattern of the API. A test holds it against the models."""


def path(loc: Sequence[int | str]) -> str:
    """Write a place in the spec as users know it: spec.disks[0].size."""
    text = "spec"
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if _PLAIN_KEY.match(part) else f"[{quote(part)}]"
    return text


def sentence(spec_model: type[BaseModel], error: ErrorDetails) -> str:
    """Return one sentence for one refusal of pydantic."""
    loc = error["loc"]
    if error["type"] == "extra_forbidden":
        return f"{path(loc)}: {_unknown(spec_model, loc)}"
    if error["type"] == "missing":
        return f"{path(loc)}: is missing: {_description(spec_model, loc)}"
    if loc and loc[-1] == "[key]":
        loc = loc[:-1]
    what, remedy = _REMEDIES.get(error["type"], _other)(error)
    return f"{path(loc)}: {what}: {remedy}"


def _unknown(spec_model: type[BaseModel], loc: Sequence[int | str]) -> str:
    parent = _model_at(spec_model, loc[:-1])
    known = [field.alias or name for name, field in parent.model_fields.items()] if parent else []
    near = difflib.get_close_matches(str(loc[-1])[:64], known, n=1)
    hint = f'write "{near[0]}" if you meant that, else ' if near else ""
    return f"is not known to this version of the operator: {hint}remove the field or upgrade the operator"


def _description(spec_model: type[BaseModel], loc: Sequence[int | str]) -> str:
    parent = _model_at(spec_model, loc[:-1])
    for name, field in parent.model_fields.items() if parent else ():
        if loc[-1] in (name, field.alias):
            said = (field.description or name).rstrip(".")
            return f'add "{loc[-1]}" ({said[0].lower()}{said[1:]})'
    return f'add "{loc[-1]}"'


def _model_at(spec_model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel] | None:
    """Walk from the spec's model along a place; None where no model stands."""
    model: type[BaseModel] | None = spec_model
    for part in loc:
        if isinstance(part, int) or model is None:
            continue
        fields = model.model_fields.items()
        annotation = next((f.annotation for name, f in fields if part in (name, f.alias)), None)
        model = _model_in(annotation)
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and not isinstance(annotation, types.GenericAlias):
        return annotation if issubclass(annotation, BaseModel) else None
    found = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((model for model in found if model), None)


def _ctx(error: ErrorDetails, key: str) -> Any:
    return error.get("ctx", {}).get(key)


def _not_valid(error: ErrorDetails) -> str:
    return "is empty" if error["input"] is None else f"{quote(error['input'])} is not valid"


def _is_a(error: ErrorDetails) -> str:
    """Name the JSON type that was written."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", dict: "a mapping", list: "a list"}
    return f"is {names.get(type(error['input']), 'empty')}"


def _enum(error: ErrorDetails) -> tuple[str, str]:
    return _not_valid(error), f"write {str(_ctx(error, 'expected')).replace(chr(39), '')}"


def _pattern(error: ErrorDetails) -> tuple[str, str]:
    pattern = str(_ctx(error, "pattern"))
    return _not_valid(error), PATTERN_REMEDIES.get(pattern, f"write what matches {pattern}")


def _value_error(error: ErrorDetails) -> tuple[str, str]:
    """Pass on what our own parsers say: their text has the form "what: remedy"."""
    what, _, remedy = str(_ctx(error, "error")).rpartition(": ")
    return what, remedy


def _too_long(error: ErrorDetails) -> tuple[str, str]:
    return f"has {len(error['input'])} entries", f"write at most {_ctx(error, 'max_length')}"


def _too_short(error: ErrorDetails) -> tuple[str, str]:
    least = _ctx(error, "min_length")
    return f"has {len(error['input'])} entries", f"write at least {least}"


def _string_too_long(error: ErrorDetails) -> tuple[str, str]:
    return f"has {len(error['input'])} characters", f"write at most {_ctx(error, 'max_length')}"


def _number(error: ErrorDetails) -> tuple[str, str]:
    is_number = isinstance(error["input"], int | float)
    what = f"{quote(str(error['input']))} is not a whole number" if is_number else _is_a(error)
    return what, "write a whole number without quotes, such as 2"


def _bound(word: str, key: str) -> Callable[[ErrorDetails], tuple[str, str]]:
    return lambda error: (f"{error['input']} is out of range", f"write {word} {_ctx(error, key)}")


def _type(remedy: str) -> Callable[[ErrorDetails], tuple[str, str]]:
    return lambda error: (_is_a(error), remedy)


def _time(error: ErrorDetails) -> tuple[str, str]:
    return _not_valid(error), 'write a time in UTC, such as "2026-11-23T10:00:00Z"'


def _other(error: ErrorDetails) -> tuple[str, str]:
    return _not_valid(error), error["msg"]


_REMEDIES: Final[Mapping[str, Callable[[ErrorDetails], tuple[str, str]]]] = {
    "enum": _enum,
    "string_pattern_mismatch": _pattern,
    "value_error": _value_error,
    "too_long": _too_long,
    "too_short": _too_short,
    "string_too_long": _string_too_long,
    "int_type": _number,
    "int_from_float": _number,
    "int_parsing": _number,
    "int_parsing_size": _number,
    "greater_than_equal": _bound("at least", "ge"),
    "less_than_equal": _bound("at most", "le"),
    "bool_type": _type("write true or false without quotes"),
    "string_type": _type("write text in quotes"),
    "model_type": _type("write a mapping of field names to values"),
    "dict_type": _type("write a mapping of names to values"),
    "tuple_type": _type('write a list, one "-" for each entry'),
    "datetime_type": _time,
    "datetime_parsing": _time,
    "datetime_from_date_parsing": _time,
    "datetime_object_invalid": _time,
    "timezone_aware": _time,
}
