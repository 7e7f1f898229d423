import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from identities import Identities
from memory_cluster import MemoryCluster
from virtfleet_operator.enrolment.authority import Authority, load_authority
from virtfleet_operator.enrolment.certificates import KeyPair, build_authority, operator_purpose
from virtfleet_operator.enrolment.contexts import RENEW_AFTER, ClientTls, ServingPair
from virtfleet_operator.enrolment.errors import AuthorityError

NOW = datetime.now(UTC)
GOOD = build_authority(NOW)


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


async def test_the_authority_is_made_once_and_published(cluster: MemoryCluster) -> None:
    first, second = await load_authority(cluster), await load_authority(cluster)
    assert first.ca_pem == second.ca_pem == cluster.published
    assert cluster.publications == 1


async def test_operators_that_start_together_share_one_authority() -> None:
    class Slow(MemoryCluster):
        async def read_authority(self) -> dict[str, bytes] | None:
            found = await super().read_authority()
            await asyncio.sleep(0)
            return found

    slow = Slow()
    loaded = await asyncio.gather(*(load_authority(slow) for _ in range(5)))
    assert len({authority.ca_pem for authority in loaded}) == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({}, "no key 'tls.crt'"),
        ({"tls.crt": GOOD.certificate}, "no key 'tls.key'"),
        ({"tls.crt": b"x", "tls.key": GOOD.key}, "does not hold"),
        ({"tls.crt": GOOD.certificate, "tls.key": b"x"}, "does not hold"),
        ({"tls.crt": GOOD.certificate, "tls.key": build_authority(NOW).key}, "is not the key of"),
    ],
)
async def test_a_secret_that_cannot_be_used_is_never_replaced(
    cluster: MemoryCluster, data: dict[str, bytes], said: str
) -> None:
    cluster.authority = data
    with pytest.raises(AuthorityError, match=said):
        await load_authority(cluster)
    assert cluster.authority == data
    assert cluster.published is None


def test_a_certificate_that_is_no_authoritys_is_refused() -> None:
    with pytest.raises(AuthorityError, match="not an authority's"):
        Authority(Identities().operator())


@pytest.mark.parametrize("shift", [timedelta(days=4000), timedelta(days=-1)])
def test_an_authority_out_of_its_time_is_refused(shift: timedelta) -> None:
    with pytest.raises(AuthorityError, match="not valid now"):
        Authority(GOOD, lambda: NOW + shift)


@pytest.mark.parametrize("pair", [KeyPair(b"", b""), KeyPair(GOOD.key, GOOD.certificate)])
def test_what_is_no_pair_is_refused(pair: KeyPair) -> None:
    with pytest.raises(AuthorityError, match="PEM"):
        Authority(pair)


def test_certificates_are_renewed_after_two_thirds_of_a_day() -> None:
    clock = Clock()
    authority = Authority(GOOD, clock)
    serving, client = ServingPair(authority, ("operator",)), ClientTls(authority)
    pair, context = serving(), client()
    clock.now += RENEW_AFTER - timedelta(seconds=1)
    assert (serving(), client()) == (pair, context)
    clock.now += timedelta(seconds=2)
    assert serving() != pair
    assert client() is not context
    assert timedelta(hours=16) == RENEW_AFTER


def test_every_user_has_a_certificate_of_its_own() -> None:
    authority = Authority(GOOD)
    assert authority.issue(operator_purpose()).key != authority.issue(operator_purpose()).key


def test_a_key_is_of_one_authority_and_one_purpose() -> None:
    key = Authority(GOOD).derive_key("copies of images")
    assert key == Authority(KeyPair(GOOD.certificate, GOOD.key)).derive_key("copies of images")
    assert len(key) == 32
    assert key != Authority(GOOD).derive_key("something else")
    assert key != Authority(build_authority(NOW)).derive_key("copies of images")
