"""The Secret with a machine's cloud-init data. Its content is never logged, never in a message, never in a status."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_operator.core.validate.machine import control_character_line
from virtfleet_operator.core.verdict import Waiting, quote

MAX_DATA: Final = 65536
"""Bytes of one key, as many as the fields of the spec take."""


@dataclass(frozen=True, slots=True)
class SecretData:
    """What a Secret says to cloud-init."""

    user_data: str = field(default="", repr=False)
    network_data: str = field(default="", repr=False)


def secret_reference(vm: VirtualMachine) -> tuple[str, str] | None:
    """Return (namespace, name) of the Secret that a machine names."""
    cloud_init = vm.spec.cloud_init
    if cloud_init is None or cloud_init.secret_ref is None:
        return None
    return vm.metadata.namespace, cloud_init.secret_ref.name


def parse_secret(vm: VirtualMachine, content: Mapping[str, bytes] | None) -> SecretData | Waiting | None:
    """Parse the content of the Secret that a machine names; None when it names none."""
    reference = secret_reference(vm)
    if reference is None:
        return None
    where = f"spec.cloudInit.secretRef: Secret {quote(reference[1])}"
    if content is None:
        return Waiting("SecretNotFound", f"{where} does not exist: create it, or name another", watched=False)
    if "userData" not in content:
        return Waiting("SecretInvalid", f"{where} has no key userData: add it", watched=False)
    texts = {}
    for key in ("userData", "networkData"):
        text = _text(content.get(key, b""))
        if text is None:
            said = f"{where} has {key} that is not plain text: write UTF-8 text, at most 64Ki"
            return Waiting("SecretInvalid", said, watched=False)
        texts[key] = text
    return SecretData(texts["userData"], texts["networkData"])


def _text(data: bytes) -> str | None:
    """Return plain text of a bounded size, or None."""
    if len(data) > MAX_DATA:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if control_character_line(text) else text
