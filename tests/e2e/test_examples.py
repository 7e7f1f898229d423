"""Every file in examples/ is applied as it stands, and does what it says."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from fleet import Fleet, eventually
from virtfleet_dev.paths import checkout

EXAMPLES = sorted((checkout() / "examples").glob("*.yaml"))


def console(fleet: Fleet, name: str) -> str:
    found = fleet.wait_ready(name)
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    return fleet.console(node, found["metadata"]["uid"])


def prints(name: str, text: str) -> Callable[[Fleet], object]:
    return lambda fleet: eventually(lambda: text in console(fleet, name), f"{name} prints {text}")


def job_ends(fleet: Fleet) -> None:
    eventually(lambda: fleet.status("job").get("printableStatus") == "Stopped", "the job has ended")


def data_disk_is_kept(fleet: Fleet) -> None:
    found = fleet.wait_ready("with-data")
    uid = found["metadata"]["uid"]
    node = next(n for n in fleet.cluster.nodes if n.name == found["status"]["nodeName"])
    fleet.delete("with-data")
    kept = [p for p in fleet.pool(node) if uid in str(p)]
    assert [p.stem for p in kept] == ["data"]
    for path in kept:
        path.unlink()


def sized_by_class(fleet: Fleet) -> None:
    assert fleet.wait_ready("sized")["status"]["machine"]["memory"]["current"] == "160Mi"


PROOFS: dict[str, Callable[[Fleet], object]] = {
    "quickstart.yaml": prints("quickstart", "READY"),
    "classes.yaml": sized_by_class,
    "data-disk.yaml": data_disk_is_kept,
    "cloud-init.yaml": prints("greeter", "USERDATA hello from greeter"),
    "kernel-boot.yaml": prints("tiny", "READY"),
    "run-once.yaml": job_ends,
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(fleet: Fleet, path: Path) -> None:
    fleet.cluster.kubectl.run("apply", "-f", str(path))
    PROOFS[path.name](fleet)
    objects = [d for d in yaml.safe_load_all(path.read_text()) if d["kind"] != "Secret"]
    for kind in ("VirtualMachine", "VMImage", "VMClass"):
        fleet.delete(*[d["metadata"]["name"] for d in objects if d["kind"] == kind], kind=kind)
