"""The local OpenSSH, reaching a guest through the API server. Pure: what is run, for what the user asks.

The guest is known to ssh as vm/<namespace>/<name> (HostKeyAlias), whatever its address.
"""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from virtfleet_cli.cluster import Choice
from virtfleet_cli.errors import CliError

SSH_PORT: Final = 22

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\\@-]{0,127}\$?", re.ASCII)
_FIELDS: Final = ("kubeconfig", "context")


@dataclass(frozen=True)
class Guest:
    """A guest as the user names it."""

    name: str
    user: str | None = None


@dataclass(frozen=True)
class Login:
    """How to log in, as far as the user says."""

    namespace: str
    port: int = SSH_PORT
    user: str | None = None
    identity: str | None = None


def parse_guest(text: str) -> Guest:
    """Parse "NAME" or "USER@NAME"; CliError for anything else, such as what ssh would take for an option."""
    user, at, name = text.rpartition("@")
    if not _NAME.fullmatch(name):
        raise CliError(f"{text!r} names no machine: write NAME, or USER@NAME.")
    if at and not _USER.fullmatch(user):
        raise CliError(f"{user!r} is no user's name.")
    return Guest(name, user or None)


def this_program() -> tuple[str, ...]:
    """Return how this program is started again."""
    program = Path(sys.argv[0]).absolute()
    if program.name.startswith("kubectl-vm") and program.is_file():
        return (str(program),)
    return (sys.executable, "-P", "-m", "virtfleet_cli")  # not with what lies in the working directory


def build_options(program: Sequence[str], choice: Choice, guest: Guest, login: Login) -> tuple[str, ...]:
    """Return the options that lead ssh, or scp, to a guest."""
    chosen = [f"--{field}={value}" for field in _FIELDS if (value := getattr(choice, field)) is not None]
    forward = ["port-forward", *chosen, f"--namespace={login.namespace}", "--stdio", guest.name, str(login.port)]
    # ssh hands it to a shell, and expands what begins with a percent sign.
    proxy = shlex.join([*program, *forward]).replace("%", "%%")
    options = [f"ProxyCommand={proxy}", f"HostKeyAlias=vm/{login.namespace}/{guest.name}", "CheckHostIP=no"]
    user = login.user or guest.user
    if user is not None:
        options.append(f"User={user}")
    identity = ("-i", login.identity) if login.identity is not None else ()
    return (*identity, *(word for option in options for word in ("-o", option)))


def host_name(guest: Guest, login: Login) -> str:
    """Return the name that ssh shows, and that sections of its configuration may match."""
    return f"{guest.name}.{login.namespace}"


def ssh_command(
    program: Sequence[str], choice: Choice, guest: Guest, login: Login, words: Sequence[str]
) -> tuple[str, ...]:
    """Return the command line of ssh; `words` are run in the guest, none for a shell."""
    return ("ssh", *build_options(program, choice, guest, login), "--", host_name(guest, login), *words)


def scp_command(
    program: Sequence[str], choice: Choice, login: Login, paths: tuple[str, str], *, recursive: bool
) -> tuple[str, ...]:
    """Return the command line of scp; one of the two paths is "[USER@]NAME:PATH". CliError when not."""
    guests = [_remote(path) for path in paths]
    found = [guest for guest, _ in guests if guest is not None]
    if len(found) != 1:
        raise CliError("One of the two paths must be in a machine, as [USER@]NAME:PATH, and the other one here.")
    places = (
        f"{host_name(guest, login)}:{rest}" if guest is not None else _local(path)
        for path, (guest, rest) in zip(paths, guests, strict=True)
    )
    options = build_options(program, choice, found[0], login)
    return ("scp", *(("-r",) if recursive else ()), *options, "--", *places)


def _remote(path: str) -> tuple[Guest | None, str]:
    """Split what is in a machine; a slash before the colon makes it a file here, as scp has it."""
    host, colon, rest = path.partition(":")
    return (parse_guest(host), rest) if colon and host and "/" not in host else (None, path)


def _local(path: str) -> str:
    return path if path.startswith(("/", ".")) else f"./{path}"
