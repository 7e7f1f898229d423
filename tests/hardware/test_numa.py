import pytest

from inner_tests import InnerTests, cases


@pytest.mark.parametrize("case", cases("numa_cases.py"))
def test_numa(inner: InnerTests, case: str) -> None:
    inner.check(case)
