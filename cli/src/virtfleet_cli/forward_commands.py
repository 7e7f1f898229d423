"""`kubectl vm port-forward`, `ssh` and `scp`: reading arguments."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

import click

from virtfleet_cli.cluster import Choice, Cluster
from virtfleet_cli.errors import CliError
from virtfleet_cli.forward import find_addresses, forward_ports, forward_stdio, parse_pair
from virtfleet_cli.options import connection_options
from virtfleet_cli.running import run_command
from virtfleet_cli.ssh import SSH_PORT, Login, parse_guest, scp_command, ssh_command, this_program

_PORT: Final = click.IntRange(1, 65535)


@click.command(name="port-forward")
@click.argument("name")
@click.argument("ports", nargs=-1, required=True, metavar="[LOCAL:]REMOTE...")
@click.option("--address", default="localhost", show_default=True, help="Addresses to listen on, with commas between.")
@click.option("--stdio", is_flag=True, help="Connect standard input and output instead of listening.")
@connection_options
def port_forward(name: str, ports: tuple[str, ...], *, address: str, stdio: bool) -> None:
    """Reach TCP ports of a machine's guest at ports of this computer.

    `80` is the same port here, `8080:80` another one, `:80` any that is free. Security groups of the machine need not
    allow it; the right to virtualmachines/portforward does.
    """

    async def act(cluster: Cluster) -> None:
        pairs = [parse_pair(text) for text in ports]
        if stdio:
            if len(pairs) != 1:
                raise CliError("--stdio takes one port.")
            await forward_stdio(cluster, name, pairs[0].remote)
        else:
            await forward_ports(cluster, name, pairs, find_addresses(address))

    run_command(act)


def login_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how to log in."""
    for option in (
        click.option("-i", "--identity-file", "identity", help="Private key, as `ssh -i` takes it."),
        click.option("-l", "--username", "user", help="User in the guest; what ssh itself takes by default."),
        click.option("-p", "--port", type=_PORT, default=SSH_PORT, show_default=True, help="Port of the guest's sshd."),
    ):
        command = option(command)
    return command


@click.command()
@click.argument("target", metavar="[USER@]NAME")
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@login_options
@connection_options
def ssh(target: str, words: tuple[str, ...], **login: Any) -> None:
    """Log in to a machine's guest with the local ssh, or run a command there.

    What comes after `--` is the command. The guest's host key is known as vm/<namespace>/<name>.
    """

    def build(choice: Choice, settled: Login) -> tuple[str, ...]:
        return ssh_command(this_program(), choice, parse_guest(target), settled, words)

    _replace(build, login)


@click.command()
@click.argument("source")
@click.argument("destination")
@click.option("-r", "--recursive", is_flag=True, help="Copy folders with what is in them.")
@login_options
@connection_options
def scp(source: str, destination: str, *, recursive: bool, **login: Any) -> None:
    """Copy files from or to a machine's guest with the local scp: one of the two is [USER@]NAME:PATH."""
    _replace(
        lambda choice, settled: scp_command(
            this_program(), choice, settled, (source, destination), recursive=recursive
        ),
        login,
    )


def _replace(build: Callable[[Choice, Login], Sequence[str]], login: dict[str, Any]) -> None:
    """Become another program, whose exit status is the user's."""
    choice = click.get_current_context().obj or Choice()
    command: list[str] = []

    async def act(cluster: Cluster) -> None:
        command.extend(build(choice, Login(namespace=cluster.namespace, **login)))

    run_command(act)
    try:
        os.execvp(command[0], command)  # noqa: S606 -- no shell is what is wanted
    except OSError as error:
        click.echo(f"{command[0]} cannot be started: {error.strerror}; install OpenSSH.", err=True)
        sys.exit(1)
