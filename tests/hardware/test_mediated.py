import pytest

from inner_tests import InnerTests, cases


@pytest.mark.parametrize("case", cases("mediated_cases.py"))
def test_mediated(inner: InnerTests, case: str) -> None:
    inner.check(case)
