"""Image archives as `docker save` writes them, which `ctr image import` reads."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

PAUSE_IMAGE = "virtfleet.test/pause:1"
"""The image of the container that holds a pod's namespaces."""


def write_pause_image(program: Path, archive: Path) -> None:
    """Write an image that has nothing but Kubernetes' `pause`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as content:
        _add(content, "pause", program.read_bytes(), mode=0o755)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": ["/pause"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    ).encode()
    names = {"Config": "config.json", "RepoTags": [PAUSE_IMAGE], "Layers": ["layer.tar"]}
    with tarfile.open(archive, "w") as image:
        _add(image, "config.json", config)
        _add(image, "layer.tar", layer.getvalue())
        _add(image, "manifest.json", json.dumps([names]).encode())


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
