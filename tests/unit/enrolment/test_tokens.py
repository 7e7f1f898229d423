from datetime import UTC, datetime, timedelta

import pytest

from virtfleet_operator.enrolment import tokens
from virtfleet_operator.enrolment.tokens import JoinToken, UsedTokens, match, parse_join_tokens

NOW = datetime(2030, 1, 1, tzinfo=UTC)
TOKEN = "0123456789abcdef"


def secret(**values: str) -> dict[str, bytes]:
    return {"token": TOKEN.encode(), "nodeName": b"node-a", **{key: text.encode() for key, text in values.items()}}


@pytest.mark.parametrize(
    "expiry", [{}, {"expiresAt": "2030-01-01T00:00:01Z"}, {"expiresAt": "2030-01-01T01:00:00+00:30\n"}]
)
def test_a_good_token_is_parsed(expiry: dict[str, str]) -> None:
    assert parse_join_tokens({"join": secret(**expiry)}, NOW) == (JoinToken("join", TOKEN.encode(), "node-a"),)


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"token": TOKEN.encode()},
        secret(token=""),
        secret(token="short"),
        secret(token=" " * 32),
        secret(nodeName=""),
        secret(nodeName="n\u00f6de"),
        secret(expiresAt="2030-01-01T00:00:00Z"),
        secret(expiresAt="2029-12-31"),
        secret(expiresAt="2031-01-01T00:00:00"),
        secret(expiresAt="tomorrow"),
        secret(expiresAt=""),
        {**secret(), "expiresAt": b"\xff"},
    ],
)
def test_what_cannot_be_used_is_ignored_and_the_others_are_not(data: dict[str, bytes]) -> None:
    found = parse_join_tokens({"bad": data, "good": secret()}, NOW)
    assert [token.secret_name for token in found] == ["good"]


def test_a_token_matches_for_its_node_alone() -> None:
    known = (JoinToken("a", b"a" * 16, "node-a"), JoinToken("b", b"b" * 16, "node-b"))
    assert match(known, "a" * 16, "node-a") == known[0]
    assert match(known, "a" * 16, "node-b") is None
    assert match(known, "a" * 15, "node-a") is None
    assert match(known, "", "node-a") is None
    assert match((), "a" * 16, "node-a") is None


def test_a_used_token_is_good_again_for_the_same_key_and_node_and_not_for_long() -> None:
    used = UsedTokens()
    used.remember(TOKEN, "node-a", b"key", NOW)
    assert used.is_repeated(TOKEN, "node-a", b"key", NOW + tokens.REPEAT_WITHIN)
    assert not used.is_repeated(TOKEN, "node-a", b"key", NOW + tokens.REPEAT_WITHIN + timedelta(seconds=1))
    assert not used.is_repeated(TOKEN, "node-a", b"other", NOW)
    assert not used.is_repeated(TOKEN, "node-b", b"key", NOW)
    assert not used.is_repeated("other", "node-a", b"key", NOW)


def test_used_tokens_are_forgotten_in_the_end() -> None:
    used = UsedTokens()
    for number in range(5000):
        used.remember(str(number), "node-a", b"key", NOW)
    assert not used.is_repeated("0", "node-a", b"key", NOW)
    assert used.is_repeated("4999", "node-a", b"key", NOW)
