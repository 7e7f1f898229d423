from pathlib import Path

import pytest

from virtfleet_node.api.epoch import EpochFileError, EpochGuard, StaleEpochError
from virtfleet_node.core.errors import InvalidError, UnavailableError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "epoch"


def test_the_same_and_a_higher_epoch_are_admitted(path: Path) -> None:
    guard = EpochGuard(path)
    for epoch in ("0", "3", "3", "7"):
        guard.admit(epoch)
    assert path.read_text() == "7"


def test_a_lower_epoch_is_refused_also_after_a_restart(path: Path) -> None:
    EpochGuard(path).admit("7")
    with pytest.raises(StaleEpochError, match="Epoch 6 is over: an operator with epoch 7"):
        EpochGuard(path).admit("6")


@pytest.mark.parametrize("header", [None, "", "-1", "1.5", "+1", " 1", "0x10", "seven", "\u0661", "1" * 19])
def test_what_is_no_epoch_is_invalid(path: Path, header: str | None) -> None:
    with pytest.raises(InvalidError, match="Virtfleet-Epoch"):
        EpochGuard(path).admit(header)
    assert not path.exists()


def test_a_file_that_holds_no_epoch_is_not_guessed_at(path: Path) -> None:
    path.write_bytes(b"\xff seven")
    with pytest.raises(EpochFileError, match="leaseTransitions"):
        EpochGuard(path)


def test_a_crash_while_writing_leaves_the_former_epoch(path: Path) -> None:
    EpochGuard(path).admit("5")
    path.with_suffix(".partial").write_text("9")
    assert EpochGuard(path).highest == 5


def test_an_epoch_that_cannot_be_kept_is_not_admitted(tmp_path: Path) -> None:
    guard = EpochGuard(tmp_path / "missing" / "epoch")
    with pytest.raises(UnavailableError, match="state directory"):
        guard.admit("1")
    assert guard.highest == 0
