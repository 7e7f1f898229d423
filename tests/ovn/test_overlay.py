from frames import udp_frame
from network_namespace import tcpdump
from ovn_rig import OvnRig, Probe, eventually

MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")
ADDRESSES = ("10.20.0.1", "10.20.0.2")


def two_ports(rig: OvnRig) -> tuple[Probe, Probe]:
    rig.nbctl("ls-add", "net")
    for name, mac, address in zip(("one", "two"), MACS, ADDRESSES, strict=True):
        claim = f"{mac} {address}"
        rig.nbctl(
            *("lsp-add", "net", name, "--", "lsp-set-addresses", name, claim),
            *("--", "lsp-set-port-security", name, claim),
        )
    one, two = (
        rig.probe(node, name, mac, f"{address}/24")
        for node, name, mac, address in zip(rig.nodes, ("one", "two"), MACS, ADDRESSES, strict=True)
    )
    rig.wait_up("one", "two")
    rig.wait_synced()
    return one, two


def test_ports_of_two_nodes_reach_each_other_in_geneve(rig: OvnRig) -> None:
    one, two = two_ports(rig)
    eventually(lambda: one.pings(ADDRESSES[1]), 10, "the first ping")
    underlay, device = rig.fabric.underlay_network
    with tcpdump(underlay, device, "udp port 6081") as lines:
        assert one.pings(ADDRESSES[1])
        assert two.pings(ADDRESSES[0])
    assert any("Geneve" in line for line in lines)


def test_tcp_and_udp_carry_content(rig: OvnRig) -> None:
    one, two = two_ports(rig)
    eventually(lambda: one.pings(ADDRESSES[1]), 10, "the first ping")
    with two.listen(80), one.connect(ADDRESSES[1], 80) as connection:
        content = b"x" * 100_000
        connection.sendall(content)
        received = b""
        while len(received) < len(content):
            received += connection.recv(65536)
    assert received == content
    assert not one.connects(ADDRESSES[1], 81)
    with one.udp() as source, two.udp(53) as target:
        target.settimeout(5)
        source.sendto(b"hello", (ADDRESSES[1], 53))
        assert target.recv(100) == b"hello"


def test_a_forged_frame_does_not_arrive_and_a_true_one_does(rig: OvnRig) -> None:
    one, two = two_ports(rig)
    eventually(lambda: one.pings(ADDRESSES[1]), 10, "the first ping")
    forged = udp_frame(MACS, ("10.20.0.99", ADDRESSES[1]), payload=b"forged frame")
    true = udp_frame(MACS, ADDRESSES, payload=b"true frame")
    with two.capture() as capture:
        one.send_frames(forged, forged, true, true, true)
        assert capture.wait(lambda frame: b"true frame" in frame, 5, count=3) == 3
        assert capture.wait(lambda frame: b"forged frame" in frame, 0.2) == 0
