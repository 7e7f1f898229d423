"""Which Services lead to an operator that leads: those of its settings, and none that another host serves."""

import asyncio
from pathlib import Path

import pytest
import yaml

from virtfleet_dev.control_plane import free_port
from virtfleet_operator import serving
from virtfleet_operator.serving import served_services
from virtfleet_operator.settings import Settings, SettingsError, read_settings


def served(**parts: object) -> dict[str, int]:
    return {one.name: one.port for one in served_services(Settings.model_validate(parts))}


def test_an_operator_outside_of_a_cluster_has_none() -> None:
    outside = {"webhook": {"urlHost": "operator.example.org"}, "subresources": {"externalName": "operator.example.org"}}
    assert served(**outside) == {}


def test_each_leads_to_the_port_of_its_own_server() -> None:
    inside = {
        "enrolment": {"port": 1001, "service": {"name": "enrol"}},
        "webhook": {"port": 1002, "service": {"name": "admit"}},
        "subresources": {"port": 1003, "servicePort": 443},
    }
    assert served(**inside) == {"enrol": 1001, "admit": 1002, "virtfleet-subresources": 1003}


def test_a_server_that_is_off_has_none() -> None:
    off = {"webhook": {"enabled": False, "service": {"name": "admit"}}, "subresources": {"enabled": False}}
    assert served(**off) == {}


def test_the_address_of_the_command_line_wins_and_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "operator.yaml"
    path.write_text(yaml.safe_dump({"address": "192.0.2.1"}))
    assert str(read_settings(path).address) == "192.0.2.1"
    assert str(read_settings(path, "192.0.2.2").address) == "192.0.2.2"
    with pytest.raises(SettingsError, match="address"):
        read_settings(path, "$(POD_IP)")


async def test_services_lead_to_an_operator_once_every_server_of_it_listens() -> None:
    ports = [free_port(), free_port()]
    settings = Settings.model_validate(
        {
            "enrolment": {"host": "127.0.0.1", "port": ports[0]},
            "webhook": {"host": "127.0.0.1", "port": ports[1]},
            "subresources": {"enabled": False},
        }
    )
    waiting = asyncio.create_task(serving._all_listen(settings))
    first, second = [asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port) for port in ports]
    async with await first:
        done, _ = await asyncio.wait({waiting}, timeout=0.5)
        assert not done
        async with await second:
            await asyncio.wait_for(waiting, 10)
