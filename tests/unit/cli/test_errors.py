"""Every refusal of the API server becomes one sentence."""

import json

import pytest

from virtfleet_cli.errors import UnavailableError, explain

WEB = "VirtualMachine shop/web"


def status(**more: object) -> bytes:
    return json.dumps({"kind": "Status", **more}).encode()


@pytest.mark.parametrize(
    ("code", "body", "sentence"),
    [
        (404, b"404 page not found\n", "virtfleet is not installed in this cluster"),
        (
            404,
            status(reason="NotFound", message="the server could not find the requested resource", details={}),
            "is not installed",
        ),
        (404, status(reason="NotFound", message="…", details={"name": "web"}), f"{WEB} does not exist"),
        (401, status(message="Unauthorized"), "does not accept your credentials"),
        (403, status(message='User "v" cannot get resource'), 'You may not do this: User "v" cannot get resource'),
        (409, status(message="It is off."), "It is off."),
        (422, status(message="spec.x: wrong"), "spec.x: wrong"),
        (500, b"", "HTTP 500"),
        (400, b"[1, 2]", "[1, 2]"),
    ],
)
def test_sentences(code: int, body: bytes, sentence: str) -> None:
    assert sentence in str(explain(code, body, WEB))


@pytest.mark.parametrize("code", [429, 502, 503, 504])
def test_what_may_help_to_try_again(code: int) -> None:
    error = explain(code, b"service unavailable", WEB)
    assert isinstance(error, UnavailableError)
    assert str(error) == f"{WEB} cannot be reached now: service unavailable"


def test_what_is_not_there_says_what_lists_its_kind() -> None:
    body = status(reason="NotFound", message="…", details={"name": "s"})
    for kind, listed in (("VirtualMachine", "vm"), ("VMSnapshot", "vmsnapshots"), ("VMRestore", "vmrestores")):
        assert f"`kubectl get {listed} -A` lists all" in str(explain(404, body, f"{kind} shop/s"))
