"""The kind SecurityGroup: what may reach its members, and what they may reach. Rules are stateful."""

from enum import StrEnum
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field

from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.conditions import Condition
from virtfleet_api.names import DNS_LABEL_PATTERN
from virtfleet_api.network import CIDR_PATTERN
from virtfleet_api.resource import PrinterColumn, Resource

SHARED_WITH_PATTERN: Final = r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$"

PortNumber = Annotated[int, Field(ge=1, le=65535)]


class IntraGroup(StrEnum):
    """Whether members reach each other without a rule."""

    ALLOW = "Allow"
    DENY = "Deny"


class Protocol(StrEnum):
    """What a rule is about. ICMP stands for ICMPv6 too, where addresses are IPv6."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"


class PeerGroup(Model):
    """A SecurityGroup, of this namespace unless another is named; that one must share itself."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    name: Annotated[str, Field(pattern=DNS_LABEL_PATTERN, max_length=63, description="Name of the SecurityGroup.")]
    namespace: Annotated[
        str | None,
        Field(
            pattern=DNS_LABEL_PATTERN,
            max_length=63,
            description="Its namespace; the group must name this one in `sharedWith` when it is another.",
        ),
    ] = None


class Peer(Model):
    """The other side: a `cidr` or a `securityGroup`."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    security_group: Annotated[PeerGroup | None, Field(description="All members of a group.")] = None
    cidr: Annotated[
        str | None, Field(pattern=CIDR_PATTERN, max_length=49, description='Addresses, such as "10.0.0.0/8".')
    ] = None
    except_: Annotated[
        tuple[Annotated[str, Field(pattern=CIDR_PATTERN, max_length=49)], ...],
        Field(alias="except", max_length=16, description="Parts of `cidr` that are not meant."),
    ] = ()


class RulePort(Model):
    """A protocol, with a port or a range of ports; for ICMP a type, and a code."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    protocol: Annotated[Protocol, Field(description="TCP, UDP, SCTP or ICMP.")] = Protocol.TCP
    port: Annotated[PortNumber | None, Field(description="Port, or the first of a range; all when absent.")] = None
    end_port: Annotated[PortNumber | None, Field(description="Last port of the range.")] = None
    icmp_type: Annotated[int | None, Field(ge=0, le=255, description="ICMP type, such as 8 (echo request).")] = None
    icmp_code: Annotated[int | None, Field(ge=0, le=255, description="ICMP code.")] = None


class IngressRule(Model):
    """Traffic that may reach members."""

    from_: Annotated[
        tuple[Peer, ...], Field(alias="from", max_length=64, description="Who may send; anybody when absent.")
    ] = ()
    ports: Annotated[
        tuple[RulePort, ...], Field(max_length=64, description="To which ports of members; all when absent.")
    ] = ()


class EgressRule(Model):
    """Traffic that members may send."""

    to: Annotated[tuple[Peer, ...], Field(max_length=64, description="To whom; anybody when absent.")] = ()
    ports: Annotated[tuple[RulePort, ...], Field(max_length=64, description="To which ports; all when absent.")] = ()


class SecurityGroupSpec(Model):
    """What is let through. The members are the cards that name the group."""

    intra_group: Annotated[IntraGroup, Field(description="Allow or Deny traffic between members.")] = IntraGroup.ALLOW
    ingress: Annotated[
        tuple[IngressRule, ...], Field(max_length=128, description="What may reach members; nothing else does.")
    ] = ()
    egress: Annotated[
        tuple[EgressRule, ...] | None,
        Field(max_length=128, description="What members may reach; anything when absent, only this when present."),
    ] = None
    shared_with: Annotated[
        tuple[Annotated[str, Field(pattern=SHARED_WITH_PATTERN, max_length=63)], ...],
        Field(
            max_length=64,
            description='Namespaces whose groups may name this one in their rules; "*" for all.',
        ),
    ] = ()
    log_drops: Annotated[
        bool, Field(description="Log what is dropped at members, at most ten a second on each node.")
    ] = False


class SecurityGroupStatus(Model):
    """What is, written by the operator alone."""

    observed_generation: Annotated[int, Field(description="Generation of the spec this status is about.")] = 0
    members: Annotated[int, Field(description="Cards that belong to the group.")] = 0
    conditions: Annotated[tuple[Condition, ...], Field(description="Conditions, Ready among them.")] = ()


class SecurityGroup(Resource):
    """What may reach its members, wherever they run, and what they may reach."""

    plural: ClassVar[str] = "securitygroups"
    short_names: ClassVar[tuple[str, ...]] = ("sg",)
    name_max_length: ClassVar[int] = 63
    columns: ClassVar[tuple[PrinterColumn, ...]] = (
        PrinterColumn(name="Members", type="integer", json_path=".status.members"),
        PrinterColumn(name="Ready", json_path=".status.conditions[?(@.type=='Ready')].status"),
        PrinterColumn(name="Age", type="date", json_path=".metadata.creationTimestamp"),
    )

    kind: str = "SecurityGroup"
    spec: SecurityGroupSpec = SecurityGroupSpec()
    status: SecurityGroupStatus = SecurityGroupStatus()
