from pathlib import Path
from typing import Any

import pytest
import yaml

from virtfleet_node.config import ConfigError, OwnFacts, read_config

GOOD: dict[str, Any] = {
    "nodeName": "node-a",
    "listen": {"host": "10.0.0.1", "port": 8444},
    "advertise": "10.0.0.1:8444",
    "pools": [{"name": "default", "path": "/srv/pool"}],
    "enrolment": {"url": "https://operator:8443", "caFile": "/etc/ca.crt", "tokenFile": "/etc/token"},
}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "node.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def test_a_good_file_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, GOOD))
    assert config.node_name == "node-a"
    assert config.libvirt_uri == "qemu:///system"
    assert config.state_directory == Path("/var/lib/virtfleet")
    assert config.kubelet_directory == Path("/var/lib/kubelet")
    assert config.metrics is None
    assert config.roots == (Path("/var/lib/virtfleet/pools"),)
    assert read_config(write(tmp_path, {**GOOD, "poolRoots": []})).roots == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nodeName": "Node_A"}, "nodeName"),
        ({"nodeName": "a" * 64}, "nodeName"),
        ({"listen": {"host": "::", "port": 70000}}, "listen.port"),
        ({"advertise": "10.0.0.1"}, "advertise"),
        ({"pools": []}, "pools"),
        ({"pools": [{"name": "default", "path": "pool"}]}, "absolute"),
        ({"pools": [{"name": "a", "path": "/a"}, {"name": "a", "path": "/b"}]}, "two pools have the name a"),
        ({"pools": [{"name": "a", "path": "/a"}, {"name": "b", "path": "/a"}]}, "two pools have the path /a"),
        ({"pools": [{"name": "a", "path": "/a", "watermark": "90"}]}, "watermark"),
        ({"pools": [{"name": "a", "path": "/a", "type": "Logical"}]}, "type"),
        ({"cpuFrequency": "fast"}, "cpuFrequency"),
        ({"poolRoots": ["/"]}, "a folder for pools alone"),
        ({"poolRoots": ["/srv/../etc"]}, "without .."),
        ({"poolRoots": ["pools"]}, "must be absolute"),
        ({"kubeletDirectory": "kubelet"}, "kubelet is not absolute"),
        ({"colour": "red"}, "colour"),
        ({"enrolment": {**GOOD["enrolment"], "url": "http://operator"}}, "enrolment.url"),
        ({"enrolment": {"url": "https://operator", "caFile": "/ca"}}, "tokenFile"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_config(write(tmp_path, {**GOOD, **change}))


@pytest.mark.parametrize("content", ["{", "- a\n- b\n", "", "\x00"])
def test_what_is_no_configuration_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ConfigError):
        read_config(write(tmp_path, content))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "node.yaml")


SHARED = {
    **{key: GOOD[key] for key in ("pools", "enrolment")},
    "listen": {"port": 8444},
    "copies": {"port": 8445},
    "metrics": {"port": 9105},
}


@pytest.mark.parametrize(
    ("address", "advertised"), [("192.0.2.1", "192.0.2.1:8444"), ("2001:db8::1", "[2001:db8::1]:8444")]
)
def test_nodes_that_share_a_file_are_told_apart_by_the_command_line(
    tmp_path: Path, address: str, advertised: str
) -> None:
    config = read_config(write(tmp_path, SHARED), OwnFacts("hv-1", address))
    assert (config.node_name, config.advertise) == ("hv-1", advertised)
    assert config.metrics is not None
    assert [one.host for one in (config.listen, config.copy_listen, config.metrics)] == [address] * 3


def test_what_the_file_says_of_hosts_wins_over_the_command_line(tmp_path: Path) -> None:
    config = read_config(write(tmp_path, GOOD), OwnFacts("hv-1", "192.0.2.1"))
    assert (config.node_name, config.listen.host, config.advertise) == ("hv-1", "10.0.0.1", "10.0.0.1:8444")
    assert config.metrics is None  # no address makes a server that nobody asked for


def test_the_command_line_need_not_say_anything(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, GOOD), OwnFacts()) == read_config(write(tmp_path, GOOD))
    with pytest.raises(ConfigError, match="nodeName"):
        read_config(write(tmp_path, SHARED), OwnFacts(address="192.0.2.1"))
    with pytest.raises(ConfigError, match="the file"):
        read_config(write(tmp_path, "- a list"), OwnFacts("hv-1", "192.0.2.1"))
