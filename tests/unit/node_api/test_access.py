from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from identities import Identities, client_without_organization, server_of_operators
from virtfleet_node.api.access import is_operator
from virtfleet_operator.enrolment.certificates import Purpose, node_purpose, operator_purpose, serving_purpose


def certificate(purpose: Purpose) -> x509.Certificate:
    return x509.load_pem_x509_certificate(Identities().authority.issue(purpose).certificate)


def test_an_operators_certificate_is_accepted() -> None:
    assert is_operator(certificate(operator_purpose()), datetime.now(UTC))


@pytest.mark.parametrize(
    "purpose",
    [
        node_purpose("node-a"),
        serving_purpose(("virtfleet-operator.virtfleet-system.svc",)),
        client_without_organization(),
        server_of_operators(),
    ],
)
def test_any_other_certificate_of_the_fleet_is_refused(purpose: Purpose) -> None:
    assert not is_operator(certificate(purpose), datetime.now(UTC))


@pytest.mark.parametrize("shift", [timedelta(days=2), timedelta(days=-1)])
def test_an_operators_certificate_is_refused_out_of_its_time(shift: timedelta) -> None:
    assert not is_operator(certificate(operator_purpose()), datetime.now(UTC) + shift)
