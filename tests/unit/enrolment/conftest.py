"""Enrolment with the API server in memory."""

import pytest

from identities import Identities
from memory_cluster import MemoryCluster
from virtfleet_operator.enrolment.service import Enrolment


@pytest.fixture(scope="session")
def fleet() -> Identities:
    return Identities()


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


@pytest.fixture
def enrolment(cluster: MemoryCluster, fleet: Identities) -> Enrolment:
    return Enrolment(
        cluster, fleet.authority, cluster.ensure_node, namespace=cluster.namespace, reserved=("operator.example",)
    )
