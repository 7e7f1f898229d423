"""Golden files: `pytest tests/golden --rewrite-golden` writes them again; the diff is then reviewed like code."""

from collections.abc import Callable
from pathlib import Path

import pytest

Compare = Callable[[Path, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite-golden", action="store_true", help="write the golden files again")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Compare:
    """Compare a text with a golden file, or write it there."""
    rewrite = request.config.getoption("--rewrite-golden")

    def compare(path: Path, text: str) -> None:
        if rewrite:
            path.write_text(text)
        assert text == path.read_text(), f"{path.name} differs; see --rewrite-golden"

    return compare
