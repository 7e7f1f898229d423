"""`kubectl vm console` as a person and as a script use it: through a real API server, on a real terminal."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
import termios
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from conftest import Lab

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROGRAM = str(Path(sys.executable).with_name("kubectl-vm"))
DEADLINE_SECONDS = 30.0


class Screen:
    """A terminal with the program on it."""

    def __init__(self, master: int, slave: int, process: asyncio.subprocess.Process) -> None:
        self.master = master
        self.slave = slave
        self.process = process
        self.shown = b""
        self.before = b""
        """What was shown before the text that was waited for last."""
        os.set_blocking(master, False)

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    async def shows(self, text: bytes) -> None:
        """Wait until the text has been shown since the last call."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while text not in self.shown:
                try:
                    self.shown += os.read(self.master, 65536)
                except BlockingIOError:
                    await asyncio.sleep(0.02)
        self.before, self.shown = self.shown.split(text, 1)

    def is_raw(self) -> bool:
        flags = termios.tcgetattr(self.slave)[3]
        return not flags & (termios.ECHO | termios.ICANON | termios.ISIG)

    async def ends(self) -> int:
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def screen(lab: Lab, user: str, *arguments: str) -> AsyncIterator[Screen]:
    await lab.user(user)
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "--kubeconfig", str(lab.folder / user), *arguments, stdin=slave, stdout=slave, stderr=slave
    )
    try:
        yield Screen(master, slave, process)
        assert termios.tcgetattr(slave) == before, "the terminal is as it was"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        os.close(master)
        os.close(slave)


async def run(lab: Lab, user: str, *arguments: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
    """Run the program with pipes: exit status, stdout, stderr."""
    await lab.user(user)
    process = await asyncio.create_subprocess_exec(
        PROGRAM,
        *arguments,
        "--kubeconfig",
        str(lab.folder / user),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        out, err = await process.communicate(stdin)
    assert process.returncode is not None
    return process.returncode, out, err.decode()


async def test_every_key_goes_to_the_guest_until_the_escape(lab: Lab) -> None:
    async with screen(lab, "carl", "console", "web") as terminal:
        await terminal.shows(b"Connected to web; press Enter for a prompt, Ctrl-] to leave.")
        assert terminal.is_raw()
        terminal.press(b"ls\r")
        await terminal.shows(b"ls\r")
        terminal.press(b"\x03\x1b[A\x04\x1a")
        await terminal.shows(b"\x03\x1b[A\x04\x1a")
        terminal.press(b"bye\x1dnot sent")
        assert await terminal.ends() == 0
    await lab.eventually(lambda: has_typed(lab, b"bye"))


async def has_typed(lab: Lab, text: bytes) -> bool:
    return lab.node.typed.endswith(text) and lab.node.echoing == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_leaves_the_terminal_as_it_was(lab: Lab, number: signal.Signals) -> None:
    async with screen(lab, "carl", "console", "web") as terminal:
        await terminal.shows(b"Ctrl-] to leave.")
        assert terminal.is_raw()
        terminal.process.send_signal(number)
        assert await terminal.ends() == 0


async def test_a_guest_that_ends_ends_the_session(lab: Lab) -> None:
    lab.node.behave = lab.node.say_and_close
    async with screen(lab, "carl", "console", "web") as terminal:
        await terminal.shows(b"login: ")
        await terminal.shows(b"VirtualMachine default/web has no more output")
        assert await terminal.ends() == 0


async def test_a_right_that_is_withdrawn_ends_the_session_as_a_failure(lab: Lab) -> None:
    await lab.grant("theo")
    async with screen(lab, "theo", "console", "web") as terminal:
        await terminal.shows(b"Ctrl-] to leave.")
        await lab.kubectl("delete", "clusterrolebinding", "theo-console-users")
        await terminal.shows(b"The right to this console was withdrawn.")
        assert await terminal.ends() == 1


async def test_a_lost_connection_is_made_again(lab: Lab) -> None:
    lab.node.behave = lab.node.drop
    async with screen(lab, "carl", "console", "web") as terminal:
        await terminal.shows(b"Connecting again; Ctrl-] leaves.")
        lab.node.behave = lab.node.echo
        await lab.eventually(lambda: is_connected(lab))
        terminal.press(b"back")
        await terminal.shows(b"back")
        terminal.press(b"\x1d")
        assert await terminal.ends() == 0


async def test_what_the_guest_wrote_without_a_connection_is_shown_once(lab: Lab) -> None:
    lab.node.log = b"".join(b"[%5d.0] long ago\r\n" % number for number in range(5000))
    async with screen(lab, "carl", "console", "web") as terminal:
        await terminal.shows(b"Ctrl-] to leave.")
        terminal.press(b"one")
        await terminal.shows(b"one")
        lab.node.log += b"\r\nmissed this\r\n/ # "
        lab.node.cut()
        await terminal.shows(b"Connecting again; Ctrl-] leaves.\r\n")
        await terminal.shows(b"Connected again.\r\n")
        terminal.press(b"two")
        await terminal.shows(b"two")
        assert terminal.before == b"\r\nmissed this\r\n/ # "
        lab.node.log = b"something else entirely, which is long enough\r\n"
        lab.node.cut()
        await terminal.shows(b"Connected again. Some output is lost; the last that is kept follows.\r\n")
        await terminal.shows(lab.node.log)
        assert terminal.before == b""
        terminal.press(b"\x1d")
        assert await terminal.ends() == 0


async def is_connected(lab: Lab) -> bool:
    return lab.node.echoing > 0


async def test_leaving_while_there_is_no_connection(lab: Lab) -> None:
    lab.node.behave = lab.node.drop
    async with screen(lab, "carl", "console", "web") as terminal:
        await terminal.shows(b"Connecting again; Ctrl-] leaves.")
        terminal.press(b"\x1d")
        assert await terminal.ends() == 0


async def test_a_pipe_in_and_a_pipe_out(lab: Lab) -> None:
    code, out, err = await run(lab, "carl", "console", "web", "--timeout", "3s", stdin=b"uname\x1d -a\n")
    assert (code, out, err) == (0, b"uname\x1d -a\n", ""), "Ctrl-] is an escape only on a keyboard"


async def test_a_file_as_input(lab: Lab, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_bytes(b"x" * 100_000)
    await lab.user("carl")
    with keys.open("rb") as stdin:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            *("console", "web", "--timeout", "4s", "--kubeconfig", str(lab.folder / "carl")),
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
        )
        out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"x" * 100_000)


async def test_the_history_is_printed_and_left(lab: Lab) -> None:
    lab.node.queries.clear()
    lab.node.log = b"[    0.0] Linux\r\nREADY\r\n"
    code, out, err = await run(lab, "carl", "console", "web", "--history")
    assert (code, out, err) == (0, b"[    0.0] Linux\r\nREADY\r\n", "")
    assert lab.node.queries == [{"history": "65536", "follow": "false"}]


@pytest.mark.parametrize(
    ("user", "arguments", "sentence"),
    [
        ("vera", ["web"], "You may not do this: "),
        ("carl", ["absent"], "VirtualMachine default/absent does not exist; `kubectl get vm -A` lists all."),
        ("admin", ["web", "-n", "other"], "VirtualMachine other/web does not exist"),
        ("carl", ["web", "--timeout", "soon"], "'soon' is not a time span; write one such as 90s or 2m."),
    ],
)
async def test_what_cannot_be_done_is_said_in_a_sentence(
    lab: Lab, user: str, arguments: list[str], sentence: str
) -> None:
    code, out, err = await run(lab, user, "console", *arguments)
    assert code != 0
    assert out == b""
    assert sentence in err
    assert "Traceback" not in err


async def test_a_refusal_does_not_touch_the_terminal(lab: Lab) -> None:
    async with screen(lab, "vera", "console", "web") as terminal:
        await terminal.shows(b"You may not do this: ")
        assert await terminal.ends() == 1


async def test_a_node_that_is_away_is_said_at_once(lab: Lab) -> None:
    await lab.make_machine("stranded", node="node-z")
    code, _, err = await run(lab, "carl", "console", "stranded")
    assert code == 1
    assert "The node of VirtualMachine default/stranded cannot be reached" in err
