import pytest

from inner_tests import InnerTests, cases


@pytest.mark.parametrize("case", cases("machine_cases.py"))
def test_machines(inner: InnerTests, case: str) -> None:
    inner.check(case)
