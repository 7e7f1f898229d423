"""What is in the images and what is not, and that their programs start."""

import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from container_images import ORDER, components, configuration, files, run
from virtfleet_dev.containers import Container, Image, build_images, version
from virtfleet_dev.paths import checkout

MOST_MEGABYTES = {"operator": 200, "node": 350, "ovn": 200, "libvirt": 350}
BUILD_TOOLS = {"pip", "pip3", "gcc", "cc", "c++", "ld", "as", "make", "pkg-config", "git", "curl", "wget"}
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""

WRITE_FILES = """
import tempfile
for folder in (None, "/opt", "/var/tmp", "/run"):
    try:
        with tempfile.TemporaryDirectory(dir=folder) as made:
            print(made.rpartition("/")[0])
    except OSError:
        print("-")
"""


def test_an_archive_holds_one_image_under_its_name(target: str, images: dict[str, Image]) -> None:
    image = images[target]
    assert image.name == f"localhost/virtfleet/{target}:{version()}"
    with tarfile.open(image.archive) as tar:
        member = tar.extractfile("manifest.json")
        assert member is not None
        (held,) = json.load(member)
        assert held["RepoTags"] == [image.name]
        assert set(held["Layers"]) <= set(tar.getnames())


def test_images_are_small(
    target: str, images: dict[str, Image], record_property: Callable[[str, object], None]
) -> None:
    megabytes = images[target].archive.stat().st_size / 1e6
    record_property(f"{target}_megabytes", round(megabytes))
    assert megabytes < MOST_MEGABYTES[target]


def test_labels_say_what_it_is(target: str, images: dict[str, Image], revision: str) -> None:
    labels = configuration(images[target])["Labels"]
    assert isinstance(labels, dict)
    found = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert found["title"] == f"virtfleet-{target}"
    assert found["version"] == version()
    assert found["revision"].removesuffix("-dirty") == revision
    assert found["licenses"]
    assert found["description"]


def test_the_version_of_a_build_by_hand_is_the_project_s() -> None:
    assert f"\nARG VERSION={version()}\n" in (checkout() / "Dockerfile").read_text()


def test_a_second_build_makes_nothing_anew(images: dict[str, Image]) -> None:
    image = images["operator"]
    written = image.archive.stat().st_mtime_ns
    (again,) = build_images(ORDER.of("operator"), image.archive.parent)
    assert again == image
    assert again.archive.stat().st_mtime_ns == written


def test_nothing_is_left_of_the_build(root: Path) -> None:
    names = {path.name for folder in ("usr/bin", "usr/sbin", "opt/virtfleet/bin") for path in (root / folder).glob("*")}
    assert not names & BUILD_TOOLS
    for folder in ("var/lib/apt/lists", "var/cache", "var/log", "tmp", "root/.cache", "run/secrets", "build"):
        assert not [path for path in files(root / folder) if path.name != ".keep"], folder
    assert not (root / "etc/pip.conf").exists()
    mirrors = set(re.findall(r"//([^/ ]+)/", (root / "etc/apt/sources.list").read_text()))
    assert mirrors == {"deb.debian.org"}
    assert not (root / "etc/apt/ca.crt").exists()


def test_no_program_gives_rights_and_no_file_is_open_to_all(root: Path) -> None:
    found = [(path, path.lstat().st_mode) for path in files(root) if not path.is_symlink()]
    assert not [path for path, mode in found if mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [path for path, mode in found if mode & stat.S_IWOTH and stat.S_ISREG(mode)]


@pytest.mark.parametrize("target", ["operator", "node"])
def test_only_the_packages_of_the_lock_are_installed(target: str, root: Path) -> None:
    lock = (checkout() / "containers" / f"{target}.lock").read_text()
    locked = {name.lower(): pinned for name, pinned in re.findall(r"^([\w.-]+)==([^ ]+)", lock, re.MULTILINE)}
    listed = components(root).values()
    installed = {
        str(item["name"]).lower().replace("_", "-"): item["version"]
        for item in listed
        if not str(item.get("purl")).startswith("pkg:deb")
    }
    assert installed.pop("virtfleet") == version()
    assert installed.items() <= locked.items()
    packages = {path.name for path in root.glob("opt/virtfleet/lib/python3*/site-packages/virtfleet_*")}
    assert packages == {"virtfleet_api", f"virtfleet_{target}"}


def test_the_list_is_valid_and_complete(target: str, root: Path) -> None:
    text = (root / "usr/share/virtfleet/sbom.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    dpkg = ["dpkg-query", f"--admindir={root / 'var/lib/dpkg'}", "--show", "--showformat=${Package}=${Version}\n"]
    packages = set(subprocess.run(dpkg, check=True, capture_output=True, text=True).stdout.split())
    listed = components(root).values()
    debian = {f"{item['name']}={item['version']}" for item in listed if str(item.get("purl")).startswith("pkg:deb")}
    assert debian == packages
    assert all(item["licenses"] for item in listed)
    wanted = {"operator": {"aiohttp", "kopf"}, "node": {"aiohttp", "libvirt-python", "libvirt0", "qemu-utils"}}
    names = {str(item["name"]) for item in listed}
    assert wanted.get(target, set()) <= names
    unknown = [item["name"] for item in listed if "/copyright" in json.dumps(item["licenses"])]
    assert len(unknown) < len(packages) / 20


def test_the_operator_is_nobody(images: dict[str, Image], containers: dict[str, Container]) -> None:
    assert configuration(images["operator"])["User"] == "65532:65532"
    said = run(
        containers["operator"], "sh", "-c", "id -u; find / -xdev -writable -type f 2>/dev/null | grep -v ^/proc/"
    )
    assert said.stdout.split() == ["65532"]


@pytest.mark.parametrize("target", ["operator", "node"])
def test_programs_start_and_all_their_modules_load(
    target: str, containers: dict[str, Container], images: dict[str, Image]
) -> None:
    container = containers[target]
    assert configuration(images[target])["Entrypoint"] == [f"virtfleet-{target}"]
    helped = run(container, f"virtfleet-{target}", "--help")
    assert helped.returncode == 0, helped.stderr
    assert helped.stdout.startswith(f"usage: virtfleet-{target}")
    refused = run(container, f"virtfleet-{target}", "--config", "/nowhere")
    assert refused.returncode
    assert "/nowhere" in refused.stderr
    loaded = run(container, "python", "-c", IMPORT_ALL, f"virtfleet_{target}")
    assert loaded.returncode == 0, loaded.stderr
    assert int(loaded.stdout) > 50


def test_the_operator_needs_to_write_to_no_folder_but_tmp(containers: dict[str, Container]) -> None:
    root = containers["operator"].root
    program = root / "opt/virtfleet/bin/python"
    script = """
        mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && mount -t tmpfs tmpfs "$1/tmp"
        exec chroot --userspec=65532:65532 "$1" "$2" -c "$3" virtfleet_operator
    """
    code = IMPORT_ALL + WRITE_FILES
    words = ["sh", "-c", script, "sh", str(root), str(Path("/", program.relative_to(root))), code]
    done = subprocess.run(["unshare", "--mount", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1:] == ["/tmp", "-", "-", "-"]  # noqa: S108 -- the folder that is its own


def test_the_node_has_the_programs_that_its_daemon_starts(containers: dict[str, Container]) -> None:
    sources = (checkout() / "node-daemon/src").rglob("*.py")
    text = "\n".join(path.read_text() for path in sources)
    known = ("qemu-img", "nft", "ip", "ovs-vsctl", "ovn-appctl", "prlimit", "setpriv", "nice", "ionice", "gzip")
    assert all(f'"{name}"' in text for name in known)
    for name in known:
        found = run(containers["node"], "sh", "-c", f"command -v {name}")
        assert found.returncode == 0, name
    assert run(containers["node"], "qemu-img", "--version").stdout.startswith("qemu-img version")


def test_the_node_daemon_reaches_libvirt_s_library(containers: dict[str, Container]) -> None:
    code = "import libvirt; print(libvirt.open('test:///default').listAllDomains()[0].name())"
    assert run(containers["node"], "python", "-c", code).stdout.strip() == "test"
