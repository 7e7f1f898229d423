"""Which of the API server's refusals mean that an object is not there."""

import pytest

from virtfleet_operator.kube.errors import KubeError, NotFoundError, UnavailableError, build_error

ABSENT = b'{"kind": "Status", "status": "Failure", "message": "virtualmachines \\"a\\" not found", "code": 404}'


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (ABSENT, NotFoundError),
        (b"404 page not found\n", UnavailableError),
        (b"", UnavailableError),
        (b"[]", UnavailableError),
    ],
)
def test_a_server_that_does_not_know_the_kind_yet_does_not_say_that_an_object_is_gone(
    body: bytes, kind: type[KubeError]
) -> None:
    assert type(build_error(404, "GET /a", body)) is kind
