"""Where this machine gets packages from, as files that the build of an image sees and the image does not keep."""

import os
import shutil
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

_SUITES = ("bookworm", "bookworm-updates", "bookworm-security")
_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"
_APT_SETTINGS = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
_AUTHORITIES = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
_SYSTEM_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
_PIP_SETTINGS = frozenset({"extra-index-url", "index-url", "proxy", "retries", "timeout", "trusted-host"})

CA_FILE = "/run/secrets/ca.crt"
"""Where the Dockerfile mounts the secret `ca.crt`."""


def authorities() -> Path | None:
    """Return the file of authorities that this machine trusts, None if there is none."""
    named = (Path(os.environ[name]) for name in _AUTHORITIES if os.environ.get(name))
    return next((path for path in (*named, _SYSTEM_AUTHORITIES) if path.is_file()), None)


def write_apt_folder(folder: Path) -> None:
    """Make what can be mounted over /etc/apt: this machine's mirrors, proxies, passwords and authorities."""
    for name in ("apt.conf.d", "auth.conf.d", "preferences.d", "sources.list.d", "trusted.gpg.d"):
        (folder / name).mkdir(parents=True)
    lines = [f"deb [signed-by={_KEY}] {site} {suite} main" for suite in _SUITES if (site := _mirror(suite))]
    (folder / "sources.list").write_text("\n".join(lines) + "\n")
    dump = subprocess.run(["apt-config", "dump"], check=True, capture_output=True, text=True).stdout.splitlines()
    settings = [line for line in dump if line.startswith(_APT_SETTINGS)]
    if (trusted := authorities()) and not any(line.startswith("Acquire::https::CAInfo ") for line in settings):
        shutil.copyfile(trusted, folder / "ca.crt")
        settings.append('Acquire::https::CAInfo "/etc/apt/ca.crt";')
    (folder / "apt.conf.d" / "machine").write_text("\n".join(settings) + "\n")
    for path in (Path("/etc/apt/auth.conf"), *Path("/etc/apt/auth.conf.d").glob("*.conf")):
        if path.is_file():
            shutil.copyfile(path, folder / "auth.conf.d" / path.name)


def write_pip_conf(file: Path) -> None:
    """Write the indexes and proxies that pip is told of on this machine, but for folders: a build does not see them."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout
    config = RawConfigParser()
    config["global"] = {"cert": CA_FILE} if authorities() else {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        key = name.rpartition(".")[2]
        words = [word for word in value.strip("'").replace("\\n", " ").split() if not word.startswith("file:")]
        if key in _PIP_SETTINGS and words:
            config["global"][key] = " ".join(words)
    with file.open("w") as output:
        config.write(output)


def _mirror(suite: str) -> str:
    words = ("--format", "$(SITE)", "Created-By: Packages", f"Codename: {suite}")
    printed = subprocess.run(["apt-get", "indextargets", *words], check=True, capture_output=True, text=True).stdout
    return next(iter(printed.splitlines()), "")
