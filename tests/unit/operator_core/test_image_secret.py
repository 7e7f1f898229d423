"""The Secret of an image's source, as a header."""

import base64

import pytest

from virtfleet_operator.core.image_secret import parse_authorization
from virtfleet_operator.core.verdict import Waiting

WHERE = "spec.source.http"


@pytest.mark.parametrize(
    ("content", "header"),
    [
        ({"token": b"abc"}, "Bearer abc"),
        ({"token": b"abc\n"}, "Bearer abc"),
        ({"username": b"bob", "password": b"p:w"}, "Basic " + base64.b64encode(b"bob:p:w").decode()),
        ({"username": "j\u00f6rg".encode(), "password": b"x", "other": b"y"}, "Basic asO2cmc6eA=="),
    ],
)
def test_a_header(content: dict[str, bytes], header: str) -> None:
    assert parse_authorization(WHERE, "login", content) == header


@pytest.mark.parametrize(
    ("content", "reason", "said"),
    [
        (None, "SecretNotFound", "does not exist: create it, or name another"),
        ({}, "SecretInvalid", "must have username and password, or else token"),
        ({"username": b"bob"}, "SecretInvalid", "must have"),
        ({"username": b"bob", "password": b"hunter2", "token": b"x"}, "SecretInvalid", "must have"),
        ({"token": b""}, "SecretInvalid", "holds what no header can"),
        ({"token": b"hunter2\r\nHost: other"}, "SecretInvalid", "holds what no header can"),
        ({"token": b"\xff\xfe"}, "SecretInvalid", "holds what no header can"),
        ({"token": b"x" * 5000}, "SecretInvalid", "at most 4Ki"),
        ({"username": b"a:b", "password": b"hunter2"}, "SecretInvalid", "no colon in username"),
    ],
)
def test_what_is_wrong_is_said_without_the_secret(content: dict[str, bytes] | None, reason: str, said: str) -> None:
    found = parse_authorization(WHERE, "login", content)
    assert isinstance(found, Waiting)
    assert (found.reason, found.watched) == (reason, False)
    assert found.message.startswith("spec.source.http.secretRef: Secret 'login' ")
    assert said in found.message
    assert "hunter2" not in found.message
