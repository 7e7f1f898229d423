"""OVN's central part: the northbound and the southbound database under mutual TLS, and ovn-northd.

It needs no Kubernetes: certificates come as files, from wherever. Each database has an authority of its own.
"""

import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from virtfleet_dev.pki import LocalAuthority, Pair
from virtfleet_dev.process import Program, wait_until

NORTHBOUND_PORT = 6641
SOUTHBOUND_PORT = 6642
"""The ports that IANA has registered for OVN's two databases."""

READY_SECONDS = 30.0  # 0.1 s each on an idle machine

_SCHEMAS = Path("/usr/share/ovn")


@dataclass(frozen=True)
class ServerFiles:
    """What a database proves itself with, and the authority of the clients that it serves."""

    pair: Pair
    ca: Path

    @property
    def flags(self) -> tuple[str, ...]:
        """Return the flags of ovsdb-server, ovn-nbctl and ovn-sbctl alike."""
        return (f"--private-key={self.pair.key}", f"--certificate={self.pair.certificate}", f"--ca-cert={self.ca}")


@dataclass(frozen=True)
class Database:
    """One of the two databases: its program, its file `<name>.db` and its sockets are in the central's directory."""

    name: str
    """`nb` or `sb`"""
    schema: str
    port: int
    host: str
    directory: Path
    files: ServerFiles

    @property
    def program(self) -> Program:
        """Return its ovsdb-server."""
        return Program(f"ovn-{self.name}", self.directory.parent)

    @property
    def socket(self) -> Path:
        """Return the socket that is open to root of this machine, for tests and for looking."""
        return self.directory / f"{self.name}.sock"

    @property
    def remote(self) -> str:
        """Return where clients with a certificate find it, as OVN writes it."""
        return f"ssl:{self.host}:{self.port}"

    @property
    def control(self) -> Path:
        """Return the socket for `ovs-appctl -t`."""
        return self.directory / f"{self.name}.ctl"

    def start(self) -> None:
        """Start it unless it runs, and wait until it answers."""
        file = self.directory / f"{self.name}.db"
        if not file.exists():
            subprocess.run(["ovsdb-tool", "create", file, _SCHEMAS / f"ovn-{self.name}.ovsschema"], check=True)
        command: list[str | Path] = [
            "ovsdb-server",
            file,
            f"--remote=punix:{self.socket}",
            # What listens, and the role that its clients have, is a row of the database: see `listen`.
            f"--remote=db:{self.schema},{self.schema[4].upper()}B_Global,connections",
            *self.files.flags,
            f"--unixctl={self.control}",
            "--no-chdir",
            "-vconsole:warn",
        ]
        self.program.start(command, kept=True)
        wait_until(self.answers, READY_SECONDS, f"the {self.schema} database", self.program)

    def answers(self) -> bool:
        """Tell whether it answers on its socket."""
        words = ("ovsdb-client", "--timeout=5", "list-dbs", f"unix:{self.socket}")
        return subprocess.run(words, check=False, capture_output=True).returncode == 0

    def run(self, *words: str) -> str:
        """Run ovn-nbctl or ovn-sbctl on the socket and return what it printed, without the last line break."""
        tool = [f"ovn-{self.name}ctl", f"--db=unix:{self.socket}", "--no-leader-only", "--timeout=30"]
        return subprocess.run([*tool, *words], check=True, capture_output=True, text=True).stdout.strip()

    def listen(self, role: str | None) -> None:
        """Have it listen with TLS, to clients that have a role or may do everything."""
        self.run("init")
        options = [f"role={role}"] if role else []
        self.run("set-connection", *options, f"pssl:{self.port}:{self.host}")


class OvnCentral:
    """Both databases and ovn-northd, in `<directory>/ovn`, each started again whenever it ends."""

    def __init__(self, directory: Path, host: str, northbound: ServerFiles, southbound: ServerFiles) -> None:
        """Take the cluster's directory, the address to listen on, and the files of the two servers."""
        self.directory = directory / "ovn"
        self.northbound = Database("nb", "OVN_Northbound", NORTHBOUND_PORT, host, self.directory, northbound)
        self.southbound = Database("sb", "OVN_Southbound", SOUTHBOUND_PORT, host, self.directory, southbound)
        self.northd = Program("ovn-northd", directory)

    def up(self) -> None:
        """Start what does not run."""
        self.directory.mkdir(parents=True, exist_ok=True)
        for database, role in ((self.northbound, None), (self.southbound, "ovn-controller")):
            database.start()
            database.listen(role)
        command: list[str | Path] = [
            "ovn-northd",
            f"--ovnnb-db=unix:{self.northbound.socket}",
            f"--ovnsb-db=unix:{self.southbound.socket}",
            f"--unixctl={self.directory / 'northd.ctl'}",
            "--no-chdir",
            "-vconsole:warn",
        ]
        self.northd.start(command, kept=True)

    def down(self) -> None:
        """Stop all three."""
        for program in (self.northd, self.southbound.program, self.northbound.program):
            program.stop()

    @property
    def chassis(self) -> frozenset[str]:
        """Return the names of the nodes that have registered."""
        return frozenset(self.southbound.run("--bare", "--columns=name", "list", "chassis").split())


class LocalTrust:
    """Authorities and certificates of an OVN without an operator, in a directory."""

    def __init__(self, directory: Path, host: str) -> None:
        """Take the directory to keep them in and the address at which the databases listen."""
        self._host = host
        self._directory = directory

    @cached_property
    def northbound(self) -> LocalAuthority:
        """Return the authority of the northbound database."""
        return LocalAuthority(self._directory / "northbound", "ca")

    @cached_property
    def southbound(self) -> LocalAuthority:
        """Return the authority of the southbound database."""
        return LocalAuthority(self._directory / "southbound", "ca")

    def server_files(self, authority: LocalAuthority) -> ServerFiles:
        """Return what the database with this authority serves with."""
        pair = authority.issue("server", "ovn-central", server_names=[self._host])
        return ServerFiles(pair, authority.pair.certificate)

    def writer(self) -> Pair:
        """Return the certificate of one who writes the northbound database."""
        return self.northbound.issue("writer", "virtfleet-operator")

    def chassis(self, node_name: str) -> Pair:
        """Return the certificate of a node's ovn-controller: its common name is the chassis' name."""
        return self.southbound.issue(node_name, node_name)
