"""Who is calling: only a certificate with an allowed name makes the headers mean something."""

import json

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from virtfleet_operator.subresources.front_proxy import MAX_EXTRA, FrontProxyError, User, identify, parse_front_proxy

CONFIG = {
    "requestheader-client-ca-file": "-----BEGIN CERTIFICATE-----",
    "requestheader-allowed-names": '["front-proxy-client"]',
    "requestheader-username-headers": '["X-Remote-User"]',
    "requestheader-group-headers": '["X-Remote-Group"]',
    "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
}
PEER = {"subject": ((("organizationName", "x"),), (("commonName", "front-proxy-client"),))}


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def test_a_user_with_groups_and_extra() -> None:
    request = headers(
        ("X-Remote-User", "carl"),
        ("X-Remote-Group", "a"),
        ("x-remote-group", "b"),
        ("X-Remote-Extra-Acme.com%2Fproject", "p1"),
        ("X-Remote-Extra-acme.com%2fProject", "p2"),
        ("X-Remote-Extra-", "nothing"),
        ("X-Other", "ignored"),
    )
    user = identify(parse_front_proxy(CONFIG), PEER, request)
    assert user == User("carl", ("a", "b"), "", {"acme.com/project": ("p1", "p2")})


@pytest.mark.parametrize(
    "peer",
    [
        None,
        {},
        {"subject": ()},
        {"subject": ((("commonName", "admin"),),)},
        {"subject": ((("organizationName", "front-proxy-client"),),)},
    ],
)
def test_no_other_peer_is_believed(peer: dict[str, object] | None) -> None:
    with pytest.raises(FrontProxyError, match="Only the API server may call this"):
        identify(parse_front_proxy(CONFIG), peer, headers(("X-Remote-User", "admin")))


def test_without_allowed_names_every_certificate_of_the_authority_counts() -> None:
    proxy = parse_front_proxy({**CONFIG, "requestheader-allowed-names": "[]"})
    peer = {"subject": ((("commonName", "any"),),)}
    assert identify(proxy, peer, headers(("X-Remote-User", "carl"))).name == "carl"


@pytest.mark.parametrize("request_headers", [headers(), headers(("X-Remote-User", "")), headers(("X-User", "admin"))])
def test_a_request_without_a_user_is_refused(request_headers: CIMultiDictProxy[str]) -> None:
    with pytest.raises(FrontProxyError, match="names no user"):
        identify(parse_front_proxy(CONFIG), PEER, request_headers)


def test_headers_have_the_names_that_the_cluster_gives_them() -> None:
    proxy = parse_front_proxy({**CONFIG, "requestheader-username-headers": json.dumps(["X-A", "X-B"])})
    assert identify(proxy, PEER, headers(("X-B", "carl"))).name == "carl"


def test_extra_attributes_are_bounded() -> None:
    many = headers(("X-Remote-User", "carl"), *((f"X-Remote-Extra-k{number}", "v") for number in range(500)))
    assert len(identify(parse_front_proxy(CONFIG), PEER, many).extra) == MAX_EXTRA


@pytest.mark.parametrize("data", [{}, {**CONFIG, "requestheader-client-ca-file": " \n"}])
def test_a_cluster_without_a_front_proxy_is_told_what_to_do(data: dict[str, str]) -> None:
    with pytest.raises(FrontProxyError, match="start kube-apiserver with --requestheader-client-ca-file"):
        parse_front_proxy(data)


@pytest.mark.parametrize("text", ["{", '"x"', "[1]", "{}"])
def test_a_spoilt_list_is_named(text: str) -> None:
    with pytest.raises(FrontProxyError, match="requestheader-allowed-names in ConfigMap"):
        parse_front_proxy({**CONFIG, "requestheader-allowed-names": text})
