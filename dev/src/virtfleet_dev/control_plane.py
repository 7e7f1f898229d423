"""etcd, kube-apiserver and kube-controller-manager on loopback, each started again whenever it ends."""

import base64
import json
import secrets
import socket
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from virtfleet_dev.kubectl import Kubectl
from virtfleet_dev.kubernetes import binaries, minor_version
from virtfleet_dev.pki import LocalAuthority, Pair, service_account_key
from virtfleet_dev.process import Program, wait_until

READY_SECONDS = 120.0  # 4 s on an idle machine; generous where others compile
SERVICE_NETWORK = "10.96.0.0/16"


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass(frozen=True)
class Write:
    """A write that the API server carried out, from its audit log."""

    user: str
    verb: str
    resource: str
    subresource: str
    namespace: str
    name: str
    body: Any


class ControlPlane:
    """A real API server with its store, in a directory."""

    controllers_run = (
        "namespace,serviceaccount,serviceaccount-token,root-ca-cert-publisher,garbagecollector,clusterrole-aggregation,"
        "pvc-protection"
    )
    """The controllers that namespaces, ServiceAccounts, garbage collection, aggregated roles and claims need."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.etcd = Program("etcd", directory)
        self.apiserver = Program("kube-apiserver", directory)
        self.controllers = Program("kube-controller-manager", directory)
        self.kubeconfig = directory / "kubeconfig"
        self.audit_log = directory / "log" / "audit.log"

    @cached_property
    def ports(self) -> dict[str, int]:
        """Return the ports, chosen once and kept in the directory."""
        path = self.directory / "ports.json"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            names = ("etcd", "peer", "apiserver", "webhook", "subresources", "metrics")
            path.write_text(json.dumps({name: free_port() for name in names}))
        ports: dict[str, int] = json.loads(path.read_text())
        return ports

    @property
    def address(self) -> str:
        """Return the address at which the API server listens."""
        return "127.0.0.1"

    @property
    def server(self) -> str:
        """Return the URL of the API server."""
        return f"https://{self.address}:{self.ports['apiserver']}"

    @cached_property
    def authority(self) -> LocalAuthority:
        """Return the authority that the API server and its clients prove themselves by."""
        return LocalAuthority(self.directory / "pki", "ca")

    @cached_property
    def _front_proxy(self) -> LocalAuthority:
        return LocalAuthority(self.directory / "pki", "front-proxy-ca")

    @cached_property
    def kubectl(self) -> Kubectl:
        """Return kubectl as the administrator."""
        return Kubectl(binaries()["kubectl"], self.kubeconfig)

    def up(self) -> None:
        """Start what does not run and wait until the API answers."""
        self.write_kubeconfig(self.kubeconfig, "admin", "system:masters")
        self.start_etcd()
        self.start_apiserver()
        self.start_controllers()

    def down(self) -> None:
        """Stop everything."""
        for program in (self.controllers, self.apiserver, self.etcd):
            program.stop()

    def start_etcd(self) -> None:
        """Start etcd with the data it had."""
        client, peer = (f"http://127.0.0.1:{self.ports[name]}" for name in ("etcd", "peer"))
        self.etcd.start(
            [
                "etcd",
                "--name=dev",
                f"--data-dir={self.directory / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=dev={peer}",
                "--log-level=warn",
            ],
            kept=True,
        )

    def start_apiserver(self) -> None:
        """Start the API server and wait until it is ready."""
        self.apiserver.start(self._apiserver_command(), kept=True)
        wait_until(self.ready, READY_SECONDS, "the API server", self.apiserver)

    def start_controllers(self) -> None:
        """Start the controllers."""
        config = self.directory / "pki" / "controllers.kubeconfig"
        self.write_kubeconfig(config, "system:kube-controller-manager", None)
        self.controllers.start(
            [
                binaries()["kube-controller-manager"],
                f"--kubeconfig={config}",
                "--leader-elect=false",
                *unencrypted_port_flags(binaries()["kube-controller-manager"]),
                "--secure-port=0",
                "--use-service-account-credentials=true",
                f"--controllers={self.controllers_run}",
                f"--service-account-private-key-file={service_account_key(self.directory / 'pki')[0]}",
                f"--root-ca-file={self.authority.pair.certificate}",
            ],
            kept=True,
        )

    def ready(self) -> bool:
        """Tell whether the API server says so."""
        context = ssl.create_default_context(cafile=str(self.authority.pair.certificate))
        try:
            with urllib.request.urlopen(f"{self.server}/readyz", timeout=2, context=context) as reply:  # noqa: S310 -- https
                return bool(reply.status == 200)  # noqa: PLR2004 -- OK
        except (OSError, urllib.error.URLError):
            return False

    def write_kubeconfig(self, path: Path, user: str, group: str | None) -> Path:
        """Write a kubeconfig for a user, who is in the group."""
        name = "user-" + user.replace(":", "-")
        pair = self.authority.issue(name, user, group)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "dev",
                    "cluster": {
                        "server": self.server,
                        "certificate-authority-data": _b64(self.authority.pair.certificate),
                    },
                }
            ],
            "users": [
                {
                    "name": user,
                    "user": {"client-certificate-data": _b64(pair.certificate), "client-key-data": _b64(pair.key)},
                }
            ],
            "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": user, "namespace": "default"}}],
            "current-context": "dev",
        }
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return path

    def writes(self) -> Iterator[Write]:
        """Yield the writes that succeeded, oldest first."""
        if not self.audit_log.exists():
            return
        for line in self.audit_log.read_text().splitlines():
            event = json.loads(line)
            target = event.get("objectRef", {})
            if event.get("responseStatus", {}).get("code", 500) < 300:  # noqa: PLR2004 -- HTTP success
                yield Write(
                    user=event["user"]["username"],
                    verb=event["verb"],
                    resource=target.get("resource", ""),
                    subresource=target.get("subresource", ""),
                    namespace=target.get("namespace", ""),
                    name=target.get("name", ""),
                    body=event.get("requestObject"),
                )

    def _apiserver_command(self) -> list[str | Path]:
        pki = self.directory / "pki"
        service = ("10.96.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
        names = (*dict.fromkeys(("127.0.0.1", self.address)), "localhost", *service)
        serving = self.authority.issue("apiserver", "kube-apiserver", server_names=names)
        proxy = self._front_proxy.issue("front-proxy-client", "front-proxy-client")
        signing, public = service_account_key(pki)
        ca = self.authority.pair.certificate
        return [
            binaries()["kube-apiserver"],
            f"--etcd-servers=http://127.0.0.1:{self.ports['etcd']}",
            f"--bind-address={self.address}",
            f"--secure-port={self.ports['apiserver']}",
            *self._reach_flags(),
            *_tls_flags(serving, proxy, ca, self._front_proxy.pair.certificate),
            f"--token-auth-file={self._tokens()}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={signing}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            "--allow-privileged=true",
            "--profiling=false",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--audit-log-path={self.audit_log}",
            f"--audit-policy-file={Path(__file__).with_name('audit-policy.yaml')}",
        ]

    def _reach_flags(self) -> list[str]:
        """Return the flags that depend on who can reach the API server: here, this machine alone, so no kubelet."""
        return [
            "--authorization-mode=RBAC",
            "--advertise-address=192.0.2.1",  # must not be loopback; unused with the next flag
            "--endpoint-reconciler-type=none",
        ]

    def _tokens(self) -> Path:
        path = self.directory / "pki" / "tokens.csv"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f'{secrets.token_hex(16)},viewer,viewer,"viewers"\n')
        return path


def _tls_flags(serving: Pair, proxy: Pair, ca: Path, front_proxy_ca: Path) -> list[str]:
    return [
        f"--tls-cert-file={serving.certificate}",
        f"--tls-private-key-file={serving.key}",
        f"--client-ca-file={ca}",
        f"--requestheader-client-ca-file={front_proxy_ca}",
        f"--proxy-client-cert-file={proxy.certificate}",
        f"--proxy-client-key-file={proxy.key}",
    ]


def unencrypted_port_flags(program: Path) -> list[str]:
    """Return what closes the unencrypted port, which Kubernetes 1.24 and later do not have, nor the flag."""
    return ["--port=0"] if minor_version(program) < 24 else []  # noqa: PLR2004 -- Kubernetes 1.24


def _b64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
