"""Every bad manifest of the corpus is answered by exactly the sentences that the corpus names."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from virtfleet_api.kinds import KINDS
from virtfleet_api.vm_disk import VMDisk
from virtfleet_operator.core.admission import review_write
from virtfleet_operator.core.parse import parse
from virtfleet_operator.core.validate import check
from virtfleet_operator.core.verdict import Invalid

NOW = datetime(2026, 11, 23, 10, tzinfo=UTC)
CORPUS = yaml.safe_load(Path(__file__).with_name("bad.yaml").read_text(encoding="utf-8"))
CASES = CORPUS["cases"]
KIND = {kind.__name__: kind for kind in KINDS}


class NoObjects:
    """A catalog of an empty cluster."""

    def image(self, _namespace: str, _name: str) -> None:
        return None

    def machine(self, _namespace: str, _name: str) -> None:
        return None

    def vm_class(self, _name: str) -> None:
        return None

    def image_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return ()

    def vm_disk(self, _namespace: str, _name: str) -> VMDisk | None:
        return None

    def disk_users(self, _namespace: str, _name: str) -> tuple[str, ...]:
        return ()

    def virtual_switch(self, _name: str) -> None:
        return None

    def virtual_switches(self) -> tuple[()]:
        return ()

    def security_group(self, _namespace: str, _name: str) -> None:
        return None

    def snapshot(self, _namespace: str, _name: str) -> None:
        return None

    def unfinished_restores(self, _namespace: str) -> tuple[()]:
        return ()

    def machine_snapshots(self, _namespace: str, _name: str) -> tuple[()]:
        return ()

    def snapshot_restores(self, _namespace: str, _name: str) -> tuple[()]:
        return ()

    def node_machines(self, _name: str) -> tuple[str, ...]:
        return ()


def manifest(case: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": "case", "namespace": "default", "uid": "u", "generation": 1} | case.get("metadata", {})
    return {"apiVersion": "virtfleet.io/v1alpha1", "kind": case["kind"], "metadata": metadata, "spec": case["spec"]}


def stored(case: dict[str, Any]) -> tuple[str, ...]:
    """What reconciliation says of a manifest that got past the webhook."""
    parsed = parse(KIND[case["kind"]], manifest(case))
    found = parsed if isinstance(parsed, Invalid) else check(parsed, NOW)
    return found.problems if found else ()


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(CASES) >= 60
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_stored_object_is_said_to_be_invalid(case: dict[str, Any]) -> None:
    assert list(stored(case)) == case["says"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_admission_says_the_same(case: dict[str, Any]) -> None:
    review = review_write(manifest(case), None, NoObjects(), NOW)
    assert review.refusal is not None
    assert review.refusal.message == "; ".join(case["says"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_sentence_names_field_fault_and_remedy_on_one_printable_line(case: dict[str, Any]) -> None:
    for sentence in case["says"]:
        assert re.match(r"(spec|metadata)[^ ]*( [^:]*\])?: ", sentence), "starts with the field"
        assert re.search(r"\b(write|add|remove|keep|name|create)\b", sentence), "says what to do"
        assert sentence.isprintable()
        assert len(sentence) < 250


@pytest.mark.parametrize(("base", "kind"), [("machine", "VirtualMachine"), ("image", "VMImage")])
def test_what_the_cases_are_laid_over_is_valid(base: str, kind: str) -> None:
    assert stored({"kind": kind, "spec": CORPUS["bases"][base]}) == ()


@pytest.mark.parametrize(
    ("kind", "spec", "says"),
    [
        (
            "VirtualMachine",
            {"cloudInit": {"userData": "x" * 65537}},
            "spec.cloudInit.userData: has 65537 characters: write at most 65536",
        ),
        (
            "VMImage",
            {"source": {"http": {"url": "https://example.org/" + "a" * 2048}}},
            "spec.source.http.url: has 2068 characters: write at most 2048",
        ),
        (
            "VirtualMachine",
            {"nodeSelector": {f"zone{n}": "a" for n in range(33)}},
            "spec.nodeSelector: has 33 entries: write at most 32",
        ),
    ],
)
def test_huge_values_are_counted_and_not_repeated(kind: str, spec: dict[str, Any], says: str) -> None:
    base = CORPUS["bases"]["machine" if kind == "VirtualMachine" else "image"]
    assert says in stored({"kind": kind, "spec": base | spec})


def test_a_message_is_bounded_however_much_is_wrong() -> None:
    wrong = {f"field{n}" * 20: n for n in range(1000)}
    review = review_write(manifest({"kind": "VirtualMachine", "spec": wrong}), None, NoObjects(), NOW)
    assert review.refusal is not None
    assert len(review.refusal.message) < 2100
    assert review.refusal.message.endswith("; and 992 more")


@pytest.mark.parametrize(
    "hostile",
    [
        "\x1b[2J\x1b]0;owned\x07",
        "\u202egnp.exe",
        "a\u0000b",
        "'; rm -rf / #",
        "<x a='1'>&lt;",
        "\ud800",
        "\uff21" * 5000,
    ],
)
def test_hostile_text_is_quoted_harmlessly_wherever_it_is_written(hostile: str) -> None:
    specs: list[Any] = [
        {"runStrategy": hostile},
        {"disks": [{"name": hostile, "source": {"blank": {}}, "size": hostile}]},
        {"nodeSelector": {hostile: hostile}},
        {hostile: {hostile: hostile}},
        {"machineType": hostile, "cpu": {"model": hostile}},
        {"kernelBoot": {"image": {"name": hostile}, "cmdline": "\n" + hostile}},
    ]
    for spec in specs:
        problems = stored({"kind": "VirtualMachine", "spec": spec})
        assert problems
        for problem in problems:
            assert problem.isprintable()
            assert len(problem) < 400


def test_hostile_user_data_that_is_text_is_not_ours_to_judge() -> None:
    text = "#!/bin/sh\n]]></metadata><domain type='kvm'>$(reboot) ../../etc {{7*7}} 'quoted' \"twice\" ünïcødé\t\n"
    spec = {"memory": {"guest": "1Gi"}, "cloudInit": {"userData": text, "networkData": text}}
    assert stored({"kind": "VirtualMachine", "spec": json.loads(json.dumps(spec))}) == ()
