"""The Secret with which a web server gives an image. What it holds is never logged, in no message and in no status."""

import base64
from collections.abc import Mapping
from typing import Final

from virtfleet_operator.core.verdict import Waiting, quote

_MAX_VALUE: Final = 4096
"""Bytes of a name, password or token: servers take headers of about 8 KiB."""


def parse_authorization(where: str, name: str, content: Mapping[str, bytes] | None) -> str | Waiting:
    """Return the header Authorization (RFC 7617, RFC 6750) for a Secret; `where` is the source that names it."""
    said = f"{where}.secretRef: Secret {quote(name)}"
    if content is None:
        return Waiting("SecretNotFound", f"{said} does not exist: create it, or name another", watched=False)
    keys = {key for key in ("username", "password", "token") if key in content}
    if keys not in ({"username", "password"}, {"token"}):
        return Waiting("SecretInvalid", f"{said} must have username and password, or else token", watched=False)
    values = {key: _text(content[key]) for key in keys}
    if None in values.values() or ":" in (values.get("username") or ""):
        problem = "holds what no header can: write printable text, at most 4Ki, and no colon in username"
        return Waiting("SecretInvalid", f"{said} {problem}", watched=False)
    if "token" in keys:
        return f"Bearer {values['token']}"
    return "Basic " + base64.b64encode(f"{values['username']}:{values['password']}".encode()).decode()


def _text(data: bytes) -> str | None:
    """Return printable text without the line end that `echo` leaves; None when it is something else."""
    try:
        text = data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        return None
    return text if text and text.isprintable() and len(data) <= _MAX_VALUE else None
