import pytest

from inner_tests import InnerTests, cases


@pytest.mark.parametrize("case", cases("host_cases.py"))
def test_host(inner: InnerTests, case: str) -> None:
    inner.check(case)
