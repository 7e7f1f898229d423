import pytest

from virtfleet_node.core.firewall import compile_ruleset, parse_peers


def test_the_text_names_peers_and_ports_sorted_and_once() -> None:
    peers = parse_peers(("10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.2"))
    text = compile_ruleset(peers, (8443, 8444, 8443))
    assert "elements = { 10.0.0.1, 10.0.0.2 }" in text
    assert "elements = { fd00::1 }" in text
    assert "tcp dport { 8443, 8444, 16509, 16514, 49152-49215 } drop" in text
    assert "udp dport { 4789, 6081 } drop" in text
    assert text == compile_ruleset(parse_peers(("10.0.0.1", "10.0.0.2", "fd00::1")), (8444, 8443))


def test_a_version_without_peers_has_an_empty_set() -> None:
    assert "elements" not in compile_ruleset(parse_peers(()), ())


@pytest.mark.parametrize("text", ["10.0.0.0/24", "10.0.0.1; drop", "node-a", "", "10.0.0.256", "::ffff:1.2.3.4:5"])
def test_only_addresses_are_peers(text: str) -> None:
    with pytest.raises(ValueError, match=r"address|nothing"):
        parse_peers((text,))
