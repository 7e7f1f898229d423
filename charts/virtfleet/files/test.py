"""`helm test`: the operator's servers answer by their Services, and the API server serves what it adds."""

import json
import os
import socket
import ssl
import sys
import time
import urllib.request
from pathlib import Path

SECONDS = 120
ACCOUNT = Path(os.environ.get("VIRTFLEET_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
FLEET_CA = Path(os.environ.get("VIRTFLEET_CA", "/etc/virtfleet/ca.crt"))


def fleet_answers(name: str, variable: str) -> str:
    """Return what a server of the fleet proves itself as; its address comes from the variables of its Service."""
    host, port = os.environ[f"{variable}_SERVICE_HOST"], int(os.environ[f"{variable}_SERVICE_PORT"])
    trust = ssl.create_default_context(cafile=str(FLEET_CA))
    with (
        socket.create_connection((host, port), timeout=5) as plain,
        trust.wrap_socket(plain, server_hostname=name) as encrypted,
    ):
        return f"{name} answers at {host}:{port} with {encrypted.version()}"


def api_is_there() -> str:
    """Return which resources the aggregated API has, as the API server says."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    host = f"[{host}]" if ":" in host else host
    url = f"https://{host}:{port}/apis/subresources.virtfleet.io/v1alpha1"
    asked = urllib.request.Request(url, headers={"Authorization": "Bearer " + (ACCOUNT / "token").read_text()})
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(asked, timeout=5, context=trust) as reply:  # noqa: S310 -- https
        found = [resource["name"] for resource in json.load(reply)["resources"]]
    if not found:
        raise ValueError("the aggregated API has no resources")
    return "the API server serves " + ", ".join(found)


def main() -> None:
    """Try each until it holds; a fresh installation needs some seconds to elect a leader."""
    space = os.environ["VIRTFLEET_NAMESPACE"]
    checks = [
        lambda: fleet_answers(f"virtfleet-operator.{space}.svc", "VIRTFLEET_OPERATOR"),
        lambda: fleet_answers(f"virtfleet-subresources.{space}.svc", "VIRTFLEET_SUBRESOURCES"),
        api_is_there,
    ]
    end = time.monotonic() + float(os.environ.get("VIRTFLEET_SECONDS", SECONDS))
    for check in checks:
        while True:
            try:
                print(check(), flush=True)
                break
            except (OSError, ValueError, KeyError) as error:
                if time.monotonic() > end:
                    sys.exit(f"Failed: {type(error).__name__}: {error}")
                time.sleep(1)


main()
