"""Managed addresses: every address that is given out may be, none is given twice, and none is forgotten."""

from ipaddress import ip_address, ip_network

from hypothesis import given, settings
from hypothesis import strategies as st

from virtfleet_api.virtual_switch import Subnet
from virtfleet_operator.core.network.address_name import address_name
from virtfleet_operator.core.network.subnets import Range, choose_address, parse_range


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    base, prefix = draw(st.sampled_from([("10.1.0.0", 27), ("10.1.0.0", 30), ("192.168.7.64", 28), ("fd00:1::", 124)]))
    network = ip_network(f"{base}/{prefix}")
    hosts = st.integers(1, network.num_addresses - 2)
    pairs = st.tuples(hosts, hosts).map(sorted)
    reserved = draw(st.lists(pairs, max_size=3))
    gateway = draw(st.none() | hosts.map(lambda n: str(network[n])))
    texts = tuple(f"{network[low]}-{network[high]}" for low, high in reserved)
    return parse_range(Subnet(cidr=str(network), gateway=gateway, reserved=texts))


@settings(max_examples=60)
@given(ranges(), st.integers(0, 40))
def test_a_whole_subnet_is_given_out_once_each_and_then_is_exhausted(subnet: Range, start: int) -> None:
    taken: list[object] = []
    last = subnet.first + start
    while (address := choose_address(subnet, last, lambda a: a in taken)) is not None:
        assert subnet.holds(address)
        assert int(address) != subnet.forwarder
        assert address not in taken
        assert not any(low <= int(address) <= high for low, high in subnet.reserved)
        taken.append(address)
        last = int(address)
    assert len(taken) == subnet.size


@settings(max_examples=40)
@given(ranges(), st.integers(1, 8))
def test_an_address_given_back_is_the_last_to_be_given_again(subnet: Range, count: int) -> None:
    taken: list[object] = []
    last = subnet.first - 1
    for _ in range(min(count, subnet.size)):
        address = choose_address(subnet, last, lambda a: a in taken)
        assert address is not None
        taken.append(address)
        last = int(address)
    if taken and len(taken) < subnet.size:
        returned = taken.pop()
        assert choose_address(subnet, last, lambda a: a in taken) != returned


@settings(max_examples=60)
@given(st.lists(st.ip_addresses(), min_size=2, max_size=2, unique=True))
def test_two_addresses_have_two_names_that_the_api_server_takes(pair: list) -> None:
    names = [address_name("tenant", address) for address in pair]
    assert len(set(names)) == 2
    for name in names:
        assert name.replace(".", "").replace("-", "").isalnum()
        assert name == name.lower()


def test_the_router_is_the_gateway_or_an_address_nobody_else_has() -> None:
    assert parse_range(Subnet(cidr="10.1.0.0/24", gateway="10.1.0.1")).router == ip_address("10.1.0.1")
    assert parse_range(Subnet(cidr="10.1.0.0/24")).router == ip_address("10.1.0.254")
    assert not parse_range(Subnet(cidr="10.1.0.0/24")).holds(ip_address("10.1.0.254"))
