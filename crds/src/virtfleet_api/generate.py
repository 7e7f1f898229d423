"""`virtfleet-crds write|check`: the generated files of a source tree. The only module of the API that touches files."""

import argparse
import difflib
import sys
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Final

import yaml

from virtfleet_api.crd import build_crd, kind_name
from virtfleet_api.kinds import KINDS
from virtfleet_api.names import GROUP
from virtfleet_api.reference import render_reference

_SHOWN_LINES: Final = 20
"""Lines of a difference that are shown: enough to see which field it is about."""

_CRD_FOLDERS: Final = (Path("crds"), Path("charts/virtfleet/files/crds"))
"""For kubectl, and for Helm, which packs nothing that lies outside of the chart."""

_HEADER: Final = "# Generated from crds/src/virtfleet_api by `make generate`; do not edit.\n"


def build_files() -> dict[Path, str]:
    """Build every generated file, by its path in the source tree."""
    texts = {f"{GROUP}_{kind.plural}.yaml": _HEADER + _to_yaml(build_crd(kind)) for kind in KINDS}
    crds = {folder / name: text for folder in _CRD_FOLDERS for name, text in texts.items()}
    pages = {Path("docs/reference") / f"{kind_name(kind).lower()}.md": render_reference(kind) for kind in KINDS}
    return crds | pages


def check_files(root: Path, files: Mapping[Path, str]) -> list[str]:
    """Return one text for each file under `root` that is not what the models say."""
    found = [_difference(root, path, text) for path, text in files.items()]
    strays = [f"{path} belongs to no kind: remove it, or run `make generate`\n" for path in _strays(root, files)]
    return [text for text in (*found, *strays) if text]


def write_files(root: Path, files: Mapping[Path, str]) -> None:
    """Write the files under `root` and remove the CRDs of kinds that are no more."""
    for path in _strays(root, files):
        (root / path).unlink()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def main() -> None:
    """Run the command line; exit status 1 says that generated files are out of date."""
    parser = argparse.ArgumentParser(prog="virtfleet-crds", description="Generated files: CRDs and reference pages.")
    parser.add_argument("act", choices=["write", "check"], help="write them, or say what is out of date")
    parser.add_argument("--root", type=Path, default=Path(), help="the source tree; this folder by default")
    arguments = parser.parse_args()
    if not (arguments.root / "crds").is_dir():
        parser.error(f"{arguments.root.resolve()} has no folder crds: name the source tree with --root")
    if arguments.act == "write":
        write_files(arguments.root, build_files())
    elif found := check_files(arguments.root, build_files()):
        sys.stdout.write("".join(found))
        sys.exit(1)


def _to_yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=120, allow_unicode=True)


def _difference(root: Path, path: Path, text: str) -> str:
    target = root / path
    stored = target.read_text(encoding="utf-8") if target.exists() else ""
    if stored == text:
        return ""
    lines = difflib.unified_diff(stored.splitlines(), text.splitlines(), "committed", "models", lineterm="", n=1)
    shown = "".join(f"  {line}\n" for line in islice(lines, _SHOWN_LINES))
    return f"{path} is not what the models say: run `make generate` and commit it\n{shown}"


def _strays(root: Path, files: Mapping[Path, str]) -> list[Path]:
    paths = (path for folder in _CRD_FOLDERS for path in (root / folder).glob(f"{GROUP}_*.yaml"))
    found = sorted(path.relative_to(root) for path in paths)
    return [path for path in found if path not in files]
