"""A Secret of the API server as files that follow it, as a kubelet mounts one: all of them change at once.

`python -m virtfleet_dev.secret_files KUBECTL KUBECONFIG NAMESPACE FOLDER SECRET …` follows until it is stopped.
"""

import base64
import logging
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from virtfleet_dev.kubectl import Kubectl, KubectlError
from virtfleet_dev.ovn import ServerFiles
from virtfleet_dev.pki import Pair

log = logging.getLogger(__name__)

FOLLOW_SECONDS = 300.0
"""How late a change may be seen: certificates are renewed eight hours before they expire."""

_LINK = "current"


def server_files(folder: Path) -> ServerFiles:
    """Return the files of a Secret of a server: paths that stay the same when they change."""
    current = folder / _LINK
    return ServerFiles(Pair(current / "tls.crt", current / "tls.key"), current / "ca.crt")


def replace_files(folder: Path, content: Mapping[str, bytes]) -> None:
    """Have the folder's `current` hold these files, all at once; readable by this user alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    generation = folder / secrets.token_hex(6)
    generation.mkdir(mode=0o700)
    for name, value in content.items():
        (generation / name).touch(mode=0o600)
        (generation / name).write_bytes(value)
    partial = folder / "partial"
    partial.unlink(missing_ok=True)
    partial.symlink_to(generation.name)
    partial.replace(folder / _LINK)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and path != generation:
            shutil.rmtree(path, ignore_errors=True)


def fetch(kubectl: Kubectl, namespace: str, name: str, folder: Path) -> bool:
    """Write the Secret to the folder unless it is there already; False if there is no such Secret (yet)."""
    found = kubectl.get("secret", name, namespace)
    if found is None:
        return False
    content = {key: base64.b64decode(value) for key, value in found["data"].items()}
    current = folder / _LINK
    if not all((current / key).exists() and (current / key).read_bytes() == value for key, value in content.items()):
        replace_files(folder, content)
    return True


def main() -> None:
    """Follow Secrets."""
    binary, kubeconfig, namespace, folder, *names = sys.argv[1:]
    kubectl = Kubectl(Path(binary), Path(kubeconfig))
    while True:
        time.sleep(FOLLOW_SECONDS)
        for name in names:
            try:
                fetch(kubectl, namespace, name, Path(folder) / name)
            except (KubectlError, OSError, subprocess.TimeoutExpired) as error:
                log.warning("Secret %s could not be read: %s", name, error)


if __name__ == "__main__":
    main()
