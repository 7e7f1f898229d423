"""What tests at scale share: a way to show their figures."""

from collections.abc import Callable

import pytest


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Print a figure, though pytest captures the output of tests that pass."""

    def tell(line: str) -> None:
        with capsys.disabled():
            print(f"\n    {line}", end="")  # noqa: T201 -- a figure, not a debugging aid

    return tell
