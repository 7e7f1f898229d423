import pytest

from inner_tests import InnerTests, cases


@pytest.mark.parametrize("case", cases("device_cases.py"))
def test_devices(inner: InnerTests, case: str) -> None:
    inner.check(case)
