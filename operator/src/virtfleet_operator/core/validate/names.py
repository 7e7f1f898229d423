"""Kubernetes' syntax of names."""

import re
from typing import Final

from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN

_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?\Z")
_LABEL_PREFIX: Final = re.compile(DNS_SUBDOMAIN_PATTERN.rstrip("$") + r"\Z")
_DNS_LABEL: Final = re.compile(DNS_LABEL_PATTERN.rstrip("$") + r"\Z")
_MAX_LABEL_PREFIX: Final = 253  # a DNS name, as Kubernetes' labels have it


def is_label_key(key: str) -> bool:
    """Follow Kubernetes' syntax of label names: an optional DNS prefix, a slash, a name."""
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= _MAX_LABEL_PREFIX and _LABEL_PREFIX.match(prefix)):
        return False
    return bool(_LABEL_NAME.match(name))


def is_label_value(value: str) -> bool:
    """Say whether a value of a label is one; the empty one is."""
    return not value or bool(_LABEL_NAME.match(value))


def is_dns_label(name: str) -> bool:
    """Say whether it could be the name of a namespace."""
    return bool(_DNS_LABEL.match(name))
