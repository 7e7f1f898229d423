"""What is taken from a page, and what passes for what it says."""

from pathlib import Path

import pytest

from doc_blocks import Step, read_blocks, read_steps, shows

PAGE = """\
<!-- also: kubectl apply -f a.yaml -->
<!-- tested -->
```console
$ kubectl get vm
NAME   AGE
a      12s
$ kubectl delete vm a
```

```console
rm -rf /
```

<!-- tested -->
```console
one
two # with a remark
```
"""


def test_the_commands_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert read_steps(page) == [
        Step("kubectl apply -f a.yaml"),
        Step("kubectl get vm", ("NAME   AGE", "a      12s")),
        Step("kubectl delete vm a"),
        Step("one"),
        Step("two # with a remark"),
    ]
    assert [block.tested for block in read_blocks(page)] == [True, False, True]


@pytest.mark.parametrize(
    ("line", "printed", "same"),
    [
        ("a   Running   12s", "NAME\na Running 2m3s", True),
        ("a   Running   12s", "a Stopped 2m3s", False),
        ("10.1.0.10 2Gi", "10.2.0.100   64Gi", True),
        ("it says …", "it says anything at all", True),
        ("it says …", "he says anything at all", False),
    ],
)
def test_numbers_and_times_may_differ(line: str, printed: str, *, same: bool) -> None:
    assert shows(printed, line) is same
