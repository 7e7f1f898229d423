"""The memory of what was taken from the host."""

from pathlib import Path

from virtfleet_node.agent.taken_devices import Taken, TakenDevices

ONE, TWO = "0000:01:00.0", "0000:02:00.0"


def test_what_was_taken_is_known_to_the_next_process(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    taken = TakenDevices(file)
    assert taken.now == Taken()
    taken.add([ONE, TWO], ["u"])
    taken.forget([ONE], [])
    taken.add([TWO], [])
    again = TakenDevices(file)
    assert again.now == Taken(devices=frozenset({TWO}), mediated=frozenset({"u"}))
    again.forget([TWO], ["u", "never made"])
    assert TakenDevices(file).now == Taken()


def test_a_file_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    file = tmp_path / "devices.json"
    file.write_text("{")
    taken = TakenDevices(file)
    assert taken.now == Taken()
    taken.add([ONE], [])
    assert TakenDevices(file).now.devices == {ONE}
