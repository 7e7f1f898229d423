"""Who is calling: the API server's front proxy, and the user it speaks for. Pure.

The headers X-Remote-* mean nothing unless the TLS peer holds a certificate that the cluster's ConfigMap
kube-system/extension-apiserver-authentication names; see "Kubernetes Apiserver Client Authentication" in the
documentation of the aggregation layer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from multidict import CIMultiDictProxy, MultiMapping

MAX_EXTRA: Final = 64
"""Extra attributes of a user that are passed on: authenticators give a handful."""


class FrontProxyError(Exception):
    """The peer is not the front proxy, or the ConfigMap does not say who is."""


@dataclass(frozen=True)
class User:
    """The user that the API server has authenticated."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class FrontProxy:
    """How the API server proves itself, and the headers it names users in."""

    ca_pem: str
    allowed_names: frozenset[str]
    """Common names; none means every certificate of the CA."""
    username_headers: tuple[str, ...]
    group_headers: tuple[str, ...]
    extra_prefixes: tuple[str, ...]
    uid_headers: tuple[str, ...] = ()


def parse_front_proxy(data: Mapping[str, str]) -> FrontProxy:
    """Parse the data of ConfigMap kube-system/extension-apiserver-authentication."""
    ca_pem = data.get("requestheader-client-ca-file", "")
    if not ca_pem.strip():
        raise FrontProxyError(
            "ConfigMap kube-system/extension-apiserver-authentication has no requestheader-client-ca-file: start"
            " kube-apiserver with --requestheader-client-ca-file, or consoles cannot be served."
        )
    return FrontProxy(
        ca_pem=ca_pem,
        allowed_names=frozenset(_strings(data, "requestheader-allowed-names")),
        username_headers=_strings(data, "requestheader-username-headers"),
        group_headers=_strings(data, "requestheader-group-headers"),
        extra_prefixes=_strings(data, "requestheader-extra-headers-prefix"),
        uid_headers=_strings(data, "requestheader-uid-headers"),
    )


def identify(proxy: FrontProxy, peer: Mapping[str, Any] | None, headers: CIMultiDictProxy[str]) -> User:
    """Return the user of a request; FrontProxyError unless the front proxy vouches for it.

    `peer` is the certificate that TLS has verified against the proxy's CA, as ssl.SSLSocket.getpeercert gives it.
    """
    names = _common_names(peer)
    if not names or (proxy.allowed_names and not proxy.allowed_names & names):
        raise FrontProxyError("Only the API server may call this; use kubectl, which goes through it.")
    name = _first(headers, proxy.username_headers)
    if not name:
        raise FrontProxyError("The API server names no user in its request.")
    groups = tuple(group for header in proxy.group_headers for group in headers.getall(header, ()))
    return User(name, groups, _first(headers, proxy.uid_headers), _extra(headers, proxy.extra_prefixes))


def _strings(data: Mapping[str, str], key: str) -> tuple[str, ...]:
    try:
        values = json.loads(data.get(key) or "[]")
    except ValueError:
        values = None
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise FrontProxyError(f"{key} in ConfigMap kube-system/extension-apiserver-authentication is no list of text.")
    return tuple(values)


def _common_names(peer: Mapping[str, Any] | None) -> set[str]:
    subject: Sequence[Sequence[tuple[str, str]]] = (peer or {}).get("subject", ())
    return {value for part in subject for key, value in part if key == "commonName"}


def _first(headers: MultiMapping[str], names: Sequence[str]) -> str:
    return next((headers[name] for name in names if headers.get(name)), "")


def _extra(headers: CIMultiDictProxy[str], prefixes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Read the extra attributes; their keys are lower case and percent-encoded, as client-go sends them."""
    found: dict[str, tuple[str, ...]] = {}
    for prefix in (prefix.lower() for prefix in prefixes):
        for header, value in headers.items():
            key = unquote(header.lower().removeprefix(prefix))
            if header.lower().startswith(prefix) and key and (key in found or len(found) < MAX_EXTRA):
                found[key] = (*found.get(key, ()), value)
    return found
