"""What the plugin says when something cannot be done: one sentence, on stderr, with exit status 1."""

import json
from typing import Any, Final

_LISTED_AS: Final = {"VMSnapshot": "vmsnapshots", "VMRestore": "vmrestores"}
"""What kubectl calls the other kinds; all else is about machines."""


class CliError(Exception):
    """Something cannot be done; the text is the sentence for the user."""

    status: int = 0
    """Of HTTP, when the API server has refused it."""


class UnavailableError(CliError):
    """The API server, the operator or a node does not answer now; trying again may help."""


def explain(status: int, content: bytes, what: str) -> CliError:
    """Return the error for a refusal of the API server; `what` names the object, such as VirtualMachine shop/web-1."""
    error = _explain(status, content, what)
    error.status = status
    return error


def _explain(status: int, content: bytes, what: str) -> CliError:
    document = _parse(content)
    message = str(document.get("message") or content[:200].decode(errors="replace").strip() or f"HTTP {status}")
    named = bool((document.get("details") or {}).get("name"))
    if status == 404 and not named and document.get("reason") in {"NotFound", None}:  # noqa: PLR2004 -- HTTP
        return CliError("virtfleet is not installed in this cluster, or its operator does not serve this now.")
    if status == 404:  # noqa: PLR2004 -- HTTP
        listed_as = _LISTED_AS.get(what.partition(" ")[0], "vm")
        return CliError(f"{what} does not exist; `kubectl get {listed_as} -A` lists all.")
    if status == 401:  # noqa: PLR2004 -- HTTP
        return CliError("The API server does not accept your credentials; log in again or check your kubeconfig.")
    if status == 403:  # noqa: PLR2004 -- HTTP
        return CliError(f"You may not do this: {message}")
    if status in {429, 502, 503, 504}:
        return UnavailableError(f"{what} cannot be reached now: {message}")
    return CliError(message)


def _parse(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
