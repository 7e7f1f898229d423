"""Join tokens: Secrets that let one node enrol once. Comparing takes the same time whatever is presented."""

import hashlib
import hmac
import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from virtfleet_operator.enrolment.ports import Data

log = logging.getLogger(__name__)

SHORTEST: Final = 16
"""Characters; `openssl rand -hex 32` gives 64. A shorter one could be guessed."""

REPEAT_WITHIN: Final = timedelta(minutes=10)
"""How long the daemon that used a token may ask again with the same key: the answer may have been lost on its way."""

_REMEMBERED: Final = 1024
"""Used tokens in memory, about 100 bytes each."""


@dataclass(frozen=True)
class JoinToken:
    """A token that is good now."""

    secret_name: str
    token: bytes
    node_name: str


def parse_join_tokens(secrets: Mapping[str, Data], now: datetime) -> tuple[JoinToken, ...]:
    """Return the tokens that are good now; those that never can be are told of in the log."""
    found = []
    for name, data in secrets.items():
        problem = _find_problem(data, now)
        if problem:
            log.warning("Ignoring a join token", extra={"action": "ReadJoinToken", "secret": name, "reason": problem})
        else:
            found.append(JoinToken(name, data["token"].strip(), data["nodeName"].decode().strip()))
    return tuple(found)


def match(tokens: tuple[JoinToken, ...], presented: str, node_name: str) -> JoinToken | None:
    """Return the token that was presented, if it is for this node."""
    found = None
    wanted = hashlib.sha256(presented.encode()).digest()
    for token in tokens:  # all of them, so that the time does not tell how many came before
        same = hmac.compare_digest(hashlib.sha256(token.token).digest(), wanted)
        if same and token.node_name == node_name:
            found = token
    return found


class UsedTokens:
    """Tokens that have been used lately, and by which key."""

    def __init__(self) -> None:
        self._used: OrderedDict[bytes, tuple[datetime, str, bytes]] = OrderedDict()

    def remember(self, presented: str, node_name: str, key: bytes, now: datetime) -> None:
        """Note that this key has used the token for this node."""
        self._used[hashlib.sha256(presented.encode()).digest()] = (now, node_name, key)
        while len(self._used) > _REMEMBERED:
            self._used.popitem(last=False)

    def is_repeated(self, presented: str, node_name: str, key: bytes, now: datetime) -> bool:
        """Tell whether the same key used the token for the same node a moment ago."""
        used = self._used.get(hashlib.sha256(presented.encode()).digest())
        return used is not None and now - used[0] <= REPEAT_WITHIN and used[1:] == (node_name, key)


def _find_problem(data: Data, now: datetime) -> str | None:
    if len(data.get("token", b"").strip()) < SHORTEST:
        return f"token must have at least {SHORTEST} characters"
    if not data.get("nodeName", b"").strip().isascii() or not data.get("nodeName", b"").strip():
        return "nodeName must hold the name of the node"
    if "expiresAt" not in data:
        return None
    try:
        expires_at = datetime.fromisoformat(data["expiresAt"].decode().strip())
        expired = expires_at <= now
    except (ValueError, TypeError):  # TypeError: a time without a zone
        return "expiresAt must be a time such as 2030-01-31T12:00:00Z"
    return "it has expired" if expired else None
