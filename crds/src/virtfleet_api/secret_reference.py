"""How an object names a Secret."""

from typing import Annotated

from pydantic import ConfigDict, Field

from virtfleet_api.base import ATOMIC, Model
from virtfleet_api.names import DNS_SUBDOMAIN_PATTERN


class SecretReference(Model):
    """A Secret of this namespace."""

    model_config = ConfigDict(json_schema_extra=ATOMIC)

    name: Annotated[str, Field(pattern=DNS_SUBDOMAIN_PATTERN, max_length=253, description="Name of the Secret.")]
