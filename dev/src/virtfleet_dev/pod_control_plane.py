"""A control plane that kubelets can join, with a scheduler and every controller."""

from functools import cached_property
from pathlib import Path

from virtfleet_dev.control_plane import ControlPlane, unencrypted_port_flags
from virtfleet_dev.fabric import Fabric
from virtfleet_dev.kubernetes import pod_binaries
from virtfleet_dev.process import Program


class PodControlPlane(ControlPlane):
    """An API server on the fabric, which reaches pods and kubelets and is reached by them."""

    controllers_run = "*"

    @property
    def scheduler(self) -> Program:
        """Return the scheduler."""
        return Program("kube-scheduler", self.directory)

    @cached_property
    def address(self) -> str:
        """Return the address at which the API server listens: the host's on the fabric."""
        return Fabric.of(self.directory).host_address

    def up(self) -> None:
        """Start what does not run and wait until the API answers."""
        super().up()
        config = self.directory / "pki" / "scheduler.kubeconfig"
        self.write_kubeconfig(config, "system:kube-scheduler", None)
        program = pod_binaries()["kube-scheduler"]
        flags = (f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0")
        self.scheduler.start([program, *flags, *unencrypted_port_flags(program)], kept=True)

    def down(self) -> None:
        """Stop everything."""
        self.scheduler.stop()
        super().down()

    def kubelet_files(self, name: str, address: str) -> dict[str, Path]:
        """Return the certificate and the key that a kubelet serves with, and the authority of its clients."""
        pair = self.authority.issue(f"kubelet-{name}", name, server_names=(name, address))
        return {"certificate": pair.certificate, "key": pair.key, "ca": self.authority.pair.certificate}

    def _reach_flags(self) -> list[str]:
        client = self.authority.issue("kubelet-client", "kube-apiserver", "system:masters")
        return [
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            f"--advertise-address={self.address}",
            "--enable-aggregator-routing=true",  # no kube-proxy serves the host: it goes to Endpoints, not to Services
            f"--kubelet-client-certificate={client.certificate}",
            f"--kubelet-client-key={client.key}",
            f"--kubelet-certificate-authority={self.authority.pair.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
        ]
