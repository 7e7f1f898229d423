from pathlib import Path

import pytest
import yaml

from virtfleet_operator.settings import Settings, SettingsError, read_settings

GOOD = {"northbound": "ssl:10.0.0.1:6641", "southbound": "ssl:10.0.0.1:6642,ssl:[fd00::2]:6642"}


def read(tmp_path: Path, **ovn: object) -> Settings:
    path = tmp_path / "operator.yaml"
    path.write_text(yaml.safe_dump({"ovn": {**GOOD, **ovn}}))
    return read_settings(path)


def test_without_the_section_there_is_no_network_engine() -> None:
    assert Settings().ovn is None


def test_the_databases_have_the_names_that_are_configured_or_those_they_are_reached_by(tmp_path: Path) -> None:
    found, named = read(tmp_path).ovn, read(tmp_path, serverNames=["ovn.example"]).ovn
    assert found
    assert found.names == ("10.0.0.1", "fd00::2")
    assert named
    assert named.names == ("ovn.example",)


@pytest.mark.parametrize("remote", ["tcp:10.0.0.1:6641", "10.0.0.1:6641", "ssl:10.0.0.1", "ssl:a:1, ssl:b:1", ""])
@pytest.mark.parametrize("key", ["northbound", "southbound"])
def test_a_remote_without_tls_or_port_is_refused(tmp_path: Path, key: str, remote: str) -> None:
    with pytest.raises(SettingsError, match=f"ovn.{key}"):
        read(tmp_path, **{key: remote})
