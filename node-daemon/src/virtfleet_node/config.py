"""The daemon's configuration file: the only place where host paths are named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from virtfleet_api.base import Model
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN
from virtfleet_api.pool import DEFAULT_WATERMARK, OVERCOMMIT_PATTERN, WATERMARK_PATTERN, PoolType
from virtfleet_api.quantity import Frequency


class ConfigError(ValueError):
    """The configuration cannot be used; the message says which key and why."""


Port = Annotated[int, Field(ge=0, le=65535)]


class Listen(Model):
    """An address to listen on."""

    host: str
    port: Port


class PoolConfig(Model):
    """A storage pool: a directory under the name that machines and images use."""

    name: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    path: Path
    type: PoolType = PoolType.DIRECTORY
    overcommit: Annotated[str | None, Field(pattern=OVERCOMMIT_PATTERN)] = None
    watermark: Annotated[str, Field(pattern=WATERMARK_PATTERN)] = DEFAULT_WATERMARK

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError(f"{path} is not absolute: write the pool's path from the root")
        return path


class EnrolmentConfig(Model):
    """How the daemon gets its certificate."""

    url: Annotated[str, Field(pattern=r"^https://")]
    ca_file: Path
    """The fleet's certificate authority, from ConfigMap virtfleet-ca."""
    token_file: Path | None = None
    """A one-time join token."""
    service_account_token_file: Path | None = None
    """The projected ServiceAccount token of the daemon's pod."""

    @model_validator(mode="after")
    def _has_proof(self) -> Self:
        if self.token_file is None and self.service_account_token_file is None:
            raise ValueError(
                "name tokenFile (a join token) or serviceAccountTokenFile: the daemon must prove who it is"
            )
        return self


class FirewallConfig(Model):
    """The node's own firewall: an nftables table that leaves everything alone but the node's ports."""

    enabled: bool = True


class Config(Model):
    """Everything the daemon is told."""

    node_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=63)]
    listen: Listen
    advertise: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")]
    """host:port where operators reach the daemon."""
    libvirt_uri: str = "qemu:///system"
    state_directory: Path = Path("/var/lib/virtfleet")
    pools: Annotated[tuple[PoolConfig, ...], Field(min_length=1)]
    pool_roots: tuple[Path, ...] | None = None
    """Folders below which a VMNode may ask for pools; None for `pools` in the state directory."""
    cpu_frequency: Frequency | None = None
    """Nominal frequency of one CPU, where what the kernel says is not what machines shall be promised."""
    kubelet_directory: Path = Path("/var/lib/kubelet")
    """The folder of the node's kubelet, where volumes of PersistentVolumeClaims are found."""
    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    enrolment: EnrolmentConfig
    metrics: Listen | None = None
    copies: Listen | None = None
    """Where other nodes copy images from; the port after that of `listen` if it is left out."""

    firewall: FirewallConfig = FirewallConfig()

    @property
    def copy_listen(self) -> Listen:
        """Return where other nodes copy images from."""
        return self.copies or Listen(host=self.listen.host, port=min(self.listen.port + 1, 65535))

    @property
    def roots(self) -> tuple[Path, ...]:
        """Return the folders below which a VMNode may ask for pools."""
        return (self.state_directory / "pools",) if self.pool_roots is None else self.pool_roots

    @field_validator("kubelet_directory")
    @classmethod
    def _absolute_kubelet(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError(f"{path} is not absolute: write the path of the kubelet's folder from the root")
        return path

    @field_validator("pool_roots")
    @classmethod
    def _absolute_roots(cls, roots: tuple[Path, ...] | None) -> tuple[Path, ...] | None:
        for root in roots or ():
            if not root.is_absolute() or ".." in root.parts or root == Path("/"):
                raise ValueError(f"{root} must be absolute, without .., and not /: write a folder for pools alone")
        return roots

    @field_validator("pools")
    @classmethod
    def _distinct(cls, pools: tuple[PoolConfig, ...]) -> tuple[PoolConfig, ...]:
        for part in ("name", "path"):
            values = [getattr(pool, part) for pool in pools]
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"two pools have the {part} {value}: give each its own")
        return pools


@dataclass(frozen=True)
class OwnFacts:
    """What differs from node to node where all nodes share one file, as the pods of a DaemonSet do."""

    node_name: str | None = None
    address: str | None = None
    """IP address of this node: where the daemon listens, and where operators reach it."""

    def complete(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content of the file with these facts; what the file says of hosts and of advertise wins."""
        known = {"nodeName": self.node_name} if self.node_name else {}
        if self.address is None:
            return {**content, **known}
        host = self.address
        places = {
            key: {"host": host, **content[key]}
            for key in ("listen", "copies", "metrics")
            if isinstance(content.get(key), dict)
        }
        port = places.get("listen", {}).get("port")
        advertise = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return {"advertise": advertise, **content, **places, **known}


def read_config(path: Path, own: OwnFacts | None = None) -> Config:
    """Read the configuration file, and add what the command line says of this node.

    Raises:
        ConfigError: it cannot be read, or says something this version does not know.
    """
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(str(error)) from error
    if own is not None and isinstance(content, dict):
        content = own.complete(content)
    try:
        return Config.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(f"{where}: {first['msg']}") from None
