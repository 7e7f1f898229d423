"""The daemon's configuration file: the only place where host paths are named."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, field_validator

from virtfleet_api.base import Model
from virtfleet_api.names import DNS_LABEL_PATTERN, DNS_SUBDOMAIN_PATTERN

Port = Annotated[int, Field(ge=0, le=65535)]


class Listen(Model):
    """An address to listen on."""

    host: str
    port: Port


class PoolConfig(Model):
    """A storage pool: a directory under the name that machines and images use."""

    name: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    path: Path

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


class Config(Model):
    """Everything the daemon is told."""

    node_name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=63)]
    listen: Listen
    advertise: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]+:[0-9]{1,5}$")]
    """host:port where operators reach the daemon."""
    libvirt_uri: str = "qemu:///system"
    state_directory: Path = Path("/var/lib/virtfleet")
    pools: Annotated[tuple[PoolConfig, ...], Field(min_length=1)]
    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    enrolment: EnrolmentConfig
    metrics: Listen | None = None


def read_config(path: Path) -> Config:
    """Read the configuration; ValueError says which field is wrong."""
    return Config.model_validate(yaml.safe_load(path.read_text()))
