"""What the administrator configures, from one YAML file, and what of it kopf is told."""

import os
import socket
from pathlib import Path
from typing import Annotated, Self

import kopf
import yaml
from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from virtfleet_api.device import DeviceClassRule
from virtfleet_api.enrol import OVN_REMOTE_PATTERN
from virtfleet_api.names import DNS_LABEL_PATTERN, GROUP
from virtfleet_operator.core.place import Strategy
from virtfleet_operator.core.validate.devices import device_rule_problems
from virtfleet_operator.handlers.watch import SERVER_TIMEOUT_SECONDS

Port = Annotated[int, Field(ge=1, le=65535)]


class SettingsError(Exception):
    """The configuration cannot be used; the message says which key and why."""


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class ServiceReference(_Section):
    """A Service, in the operator's namespace, that leads to one of its servers."""

    name: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)]
    port: Port = 443


class EnrolmentSettings(_Section):
    """Where daemons enrol."""

    host: str = "0.0.0.0"  # noqa: S104 -- nodes are on other machines
    port: Port = 8443
    names: tuple[str, ...] = ()
    """DNS names and IP addresses by which daemons reach it: the SANs of its certificate."""
    service: ServiceReference | None = None
    """The Service by which they do."""


class WebhookSettings(_Section):
    """Where the API server sends objects for validation."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 -- the API server is on another machine
    port: Port = 9443
    url_host: str | None = None
    """Host by which an API server outside the cluster's network reaches it; `host` by default."""
    service: ServiceReference | None = None


class SubresourceSettings(_Section):
    """Where the API server proxies consoles to."""

    enabled: bool = True
    host: str = "0.0.0.0"  # noqa: S104 -- the API server is on another machine
    port: Port = 9444
    service_port: Port | None = None
    """Port of the Service, if another than `port`."""
    external_name: str | None = None


class MetricsSettings(_Section):
    """Where /metrics, /healthz and /readyz are served."""

    host: str = "0.0.0.0"  # noqa: S104 -- the kubelet and Prometheus are elsewhere
    port: Port = 9100


class LeaseSettings(_Section):
    """How leaders follow each other."""

    duration_seconds: Annotated[float, Field(ge=2, le=3600)] = 10
    renew_seconds: Annotated[float, Field(gt=0)] = 3

    @model_validator(mode="after")
    def _renews_in_time(self) -> Self:
        if self.renew_seconds * 2 > self.duration_seconds:
            raise ValueError("renewSeconds must be at most half of durationSeconds, so that one failure costs nothing")
        return self


class OvnSettings(_Section):
    """Where OVN's databases are."""

    northbound: Annotated[str, Field(pattern=OVN_REMOTE_PATTERN, max_length=1024)]
    """Where operators write networks: `ssl:<address>:<port>`, several with commas."""
    southbound: Annotated[str, Field(pattern=OVN_REMOTE_PATTERN, max_length=1024)]
    """What nodes are told."""
    server_names: tuple[str, ...] = ()
    """DNS names and IP addresses in the databases' certificates; without any, the hosts of the two above."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names in the databases' certificates."""
        remotes = (*self.northbound.split(","), *self.southbound.split(","))
        hosts = (remote.removeprefix("ssl:").rpartition(":")[0].strip("[]") for remote in remotes)
        return self.server_names or tuple(dict.fromkeys(hosts))


class ImageSettings(_Section):
    """How long images stay where they are."""

    keep_unused_seconds: Annotated[float, Field(ge=0)] = 24 * 3600
    """A copy on a node where no machine uses the image is removed after this time, unless it is the fleet's last."""


class PlacementSettings(_Section):
    """Which node takes a machine."""

    strategy: Strategy = Strategy.BALANCED
    """Balanced spreads machines evenly; Packed fills one node before the next."""


class NetworkSettings(_Section):
    """How addresses are managed, and whom nodes' firewalls let in."""

    address_cool_down_seconds: Annotated[float, Field(ge=0)] = 300
    """An address that was given back is given to nobody for this time."""
    operator_addresses: tuple[IPvAnyAddress, ...] = ()
    """Addresses that operators reach nodes from. Without any, nodes have no firewall of virtfleet's: it would lock
    the operator out."""


class VolumeSettings(_Section):
    """Whether machines may have PersistentVolumeClaims as disks."""

    enabled: bool = False
    """Off: making pods in users' namespaces, one for each such disk, is a great right."""
    image: Annotated[str, Field(max_length=1024)] = ""
    """What these pods run: any image with `sleep`, such as the operator's own."""

    @model_validator(mode="after")
    def _has_image(self) -> Self:
        if self.enabled and not self.image:
            raise ValueError("image is missing: write an image with `sleep`, such as the operator's own")
        return self


def default_identity() -> str:
    """Return a name of this process that no other has."""
    return f"{socket.gethostname()}-{os.getpid()}"


class Settings(_Section):
    """The configuration file."""

    kubeconfig: Path | None = None
    namespace: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63)] = f"{GROUP.split('.')[0]}-system"
    identity: Annotated[str, Field(default_factory=default_identity, min_length=1, max_length=200)]
    address: IPvAnyAddress | None = None
    """Where this process is reached: while it leads, its Services lead there. None: somebody else sees to that."""
    enrolment: EnrolmentSettings = EnrolmentSettings()
    webhook: WebhookSettings = WebhookSettings()
    subresources: SubresourceSettings = SubresourceSettings()
    metrics: MetricsSettings = MetricsSettings()
    lease: LeaseSettings = LeaseSettings()
    images: ImageSettings = ImageSettings()
    placement: PlacementSettings = PlacementSettings()
    network: NetworkSettings = NetworkSettings()
    volumes: VolumeSettings = VolumeSettings()
    ovn: OvnSettings | None = None
    """None: there is no network engine."""
    devices: tuple[DeviceClassRule, ...] = ()
    """Device classes of all nodes; a VMNode's own of the same name wins."""

    @model_validator(mode="after")
    def _classes_are_sound(self) -> Self:
        if problem := next(device_rule_problems(self.devices, "devices"), None):
            raise ValueError(problem)
        return self


def read_settings(path: Path, address: str | None = None) -> Settings:
    """Read the configuration file; `address`, where it is given, wins over the one in the file.

    Raises:
        SettingsError: it cannot be read, or says something this version does not know.
    """
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise SettingsError(f"{path}: {error}") from error
    if address is not None and isinstance(content, dict):
        content = {**content, "address": address}
    try:
        return Settings.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SettingsError(f"{path}: {where}: {first['msg']}") from None


def build_kopf_settings() -> kopf.OperatorSettings:
    """Return what kopf is told: watch, and write nothing."""
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.client_timeout = SERVER_TIMEOUT_SECONDS + 10
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = (1, 2, 5, 10)
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Neither is ever written as long as there are only event handlers; if one slips in, its traces are ours.
    settings.persistence.finalizer = f"{GROUP}/kopf"
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=f"kopf.{GROUP}")
    settings.persistence.diffbase_storage = kopf.AnnotationsDiffBaseStorage(prefix=f"kopf.{GROUP}")
    # An object's worker lives this long after its last event: short, or a thousand objects are a thousand idle tasks.
    settings.queueing.idle_timeout = 0.5
    return settings
