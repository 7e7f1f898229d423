import pytest

from inner_tests import InnerTests, cases


@pytest.mark.parametrize("case", cases("cpu_cases.py"))
def test_cpu(inner: InnerTests, case: str) -> None:
    inner.check(case)
