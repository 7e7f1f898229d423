"""Ports as users write them, and the command lines of ssh and scp."""

import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtfleet_cli.cluster import Choice
from virtfleet_cli.errors import CliError
from virtfleet_cli.forward import PortPair, find_addresses, parse_pair
from virtfleet_cli.ssh import Guest, Login, parse_guest, scp_command, ssh_command

PROGRAM = ("/opt/my tools/kubectl-vm",)
CHOICE = Choice(kubeconfig="/home/me/50%/config", context="test")
LOGIN = Login(namespace="shop")


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("80", PortPair(80, 80)),
        ("8080:80", PortPair(8080, 80)),
        (":80", PortPair(0, 80)),
        ("0:80", PortPair(0, 80)),
        ("65535:1", PortPair(65535, 1)),
    ],
)
def test_ports_are_written_as_for_kubectl(text: str, pair: PortPair) -> None:
    assert parse_pair(text) == pair


@pytest.mark.parametrize(
    "text", ["", ":", "80:", "0", "65536", "65536:80", "a:80", "80:80:80", "-1", "٣", " 80", "80/tcp"]
)
def test_what_is_no_port_is_said(text: str) -> None:
    with pytest.raises(CliError, match="is no port: write 80, 8080:80"):
        parse_pair(text)


@given(st.text())
def test_any_text_is_a_port_or_refused(text: str) -> None:
    try:
        pair = parse_pair(text)
    except CliError:
        return
    assert 0 <= pair.local <= 65535
    assert 1 <= pair.remote <= 65535


def test_addresses() -> None:
    assert find_addresses("localhost") == ("127.0.0.1", "::1")
    assert find_addresses("10.0.0.1, localhost,127.0.0.1") == ("10.0.0.1", "127.0.0.1", "::1")


def options(command: tuple[str, ...]) -> dict[str, str]:
    """Return the -o options of a command line."""
    return dict(after.split("=", 1) for word, after in pairwise(command) if word == "-o")


def test_ssh_goes_through_this_program_with_the_same_choice() -> None:
    command = ssh_command(PROGRAM, CHOICE, parse_guest("root@web-1"), LOGIN, ("ls", "-la"))
    found = options(command)
    assert command[0] == "ssh"
    assert command[-4:] == ("--", "web-1.shop", "ls", "-la")
    assert found["HostKeyAlias"] == "vm/shop/web-1"
    assert found["User"] == "root"
    proxy = found["ProxyCommand"]
    assert "50%%" in proxy, "ssh expands what begins with a percent sign"
    assert shlex.split(proxy.replace("%%", "%")) == [
        *PROGRAM,
        "port-forward",
        "--kubeconfig=/home/me/50%/config",
        "--context=test",
        "--namespace=shop",
        "--stdio",
        "web-1",
        "22",
    ]


def test_options_win_over_the_name() -> None:
    login = Login(namespace="shop", port=2222, user="ada", identity="~/.ssh/key")
    command = ssh_command(PROGRAM, Choice(), Guest("web-1", "root"), login, ())
    assert options(command)["User"] == "ada"
    assert command[1:3] == ("-i", "~/.ssh/key")
    assert options(command)["ProxyCommand"].endswith("--stdio web-1 2222")


@pytest.mark.parametrize(
    ("paths", "places", "user"),
    [
        (("web-1:/etc/hosts", "hosts"), ("web-1.shop:/etc/hosts", "./hosts"), None),
        (("/tmp/a:b", "ada@web-1:"), ("/tmp/a:b", "web-1.shop:"), "ada"),  # noqa: S108 -- nothing is written there
        (("-rf", "web-1:x"), ("./-rf", "web-1.shop:x"), None),
    ],
)
def test_scp(paths: tuple[str, str], places: tuple[str, str], user: str | None) -> None:
    command = scp_command(PROGRAM, Choice(), LOGIN, paths, recursive=True)
    assert command[:2] == ("scp", "-r")
    assert command[-3:] == ("--", *places)
    assert options(command).get("User") == user


@pytest.mark.parametrize("paths", [("a", "b"), ("one:a", "two:b"), ("./one:a", "b")])
def test_scp_needs_one_path_in_a_machine(paths: tuple[str, str]) -> None:
    with pytest.raises(CliError, match="One of the two paths must be in a machine"):
        scp_command(PROGRAM, Choice(), LOGIN, paths, recursive=False)


@pytest.mark.parametrize(
    "text", ["", "-oProxyCommand=x", "@", "root@", "a b", "web;id", "root@-x", "ROOT@WEB", "a/b", "-x@web"]
)
def test_what_names_no_machine_is_refused(text: str) -> None:
    with pytest.raises(CliError, match=r"names no machine|is no user's name"):
        parse_guest(text)
