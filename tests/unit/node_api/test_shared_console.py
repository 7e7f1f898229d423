import asyncio
from collections.abc import AsyncIterator

import pytest

from made_up_console import Consoles
from virtfleet_node.api import shared_console
from virtfleet_node.api.shared_console import ENDED, FRAME_BYTES, HELD_BYTES, SharedConsole, Viewer
from virtfleet_node.core.errors import ConflictError, UnavailableError


@pytest.fixture
def consoles() -> Consoles:
    return Consoles()


@pytest.fixture
def shared(consoles: Consoles) -> SharedConsole:
    return SharedConsole(consoles.open)


async def take(viewer: Viewer) -> bytes:
    async with asyncio.timeout(5):
        return await viewer.take()


async def test_every_viewer_sees_what_the_guest_writes(shared: SharedConsole, consoles: Consoles) -> None:
    first, second = await shared.join(), await shared.join()
    consoles.last.say(b"login: ")
    assert await take(first) == await take(second) == b"login: "
    assert len(consoles.opened) == 1


async def test_all_viewers_may_type(shared: SharedConsole, consoles: Consoles) -> None:
    await shared.join()
    await asyncio.gather(shared.write(b"root\n"), shared.write(b"secret\n"))
    assert consoles.last.typed == b"root\nsecret\n"


async def test_the_console_is_let_go_after_the_last_viewer(shared: SharedConsole, consoles: Consoles) -> None:
    first, second = await shared.join(), await shared.join()
    await shared.leave(first)
    assert not consoles.last.closed
    await shared.leave(second)
    assert consoles.last.closed


async def test_viewers_that_come_and_go_at_once_never_open_a_second(shared: SharedConsole, consoles: Consoles) -> None:
    async def view() -> None:
        for _ in range(20):
            await shared.leave(await shared.join())

    await asyncio.gather(*(view() for _ in range(5)))
    assert all(console.closed for console in consoles.opened)


async def test_viewers_are_let_go_when_the_guest_stops(shared: SharedConsole, consoles: Consoles) -> None:
    viewer = await shared.join()
    consoles.last.say(b"Power down.")
    consoles.last.stop()
    assert [await take(viewer), await take(viewer)] == [b"Power down.", b""]
    assert viewer.end_reason == ENDED


async def test_the_next_guest_is_seen_before_all_viewers_of_the_former_have_left(
    shared: SharedConsole, consoles: Consoles
) -> None:
    former = await shared.join()
    consoles.last.stop()
    assert await take(former) == b""
    viewer = await shared.join()
    consoles.last.say(b"booting")
    assert await take(viewer) == b"booting"
    await shared.leave(former)
    assert not consoles.last.closed


async def test_a_console_that_breaks_says_why(shared: SharedConsole, consoles: Consoles) -> None:
    viewer = await shared.join()
    consoles.last.break_down()
    assert await take(viewer) == b""
    assert viewer.end_reason == "The console broke: end of file while reading data"
    await shared.leave(viewer)
    assert consoles.last.closed


async def test_a_slow_viewer_loses_the_oldest_output_and_the_others_none(
    shared: SharedConsole, consoles: Consoles
) -> None:
    slow, quick = await shared.join(), await shared.join()
    seen = 0
    for number in range(64):
        consoles.last.say(bytes([number]) * 16384)
        seen += len(await take(quick))
    assert seen == 64 * 16384
    slow.end(ENDED)
    held = b"".join([data async for data in rest(slow)])
    assert held == b"".join(bytes([number]) * 16384 for number in range(48, 64))
    assert len(held) == HELD_BYTES


async def rest(viewer: Viewer) -> AsyncIterator[bytes]:
    while data := await take(viewer):
        yield data


async def test_no_frame_is_larger_than_a_viewer_accepts(shared: SharedConsole, consoles: Consoles) -> None:
    viewer = await shared.join()
    consoles.last.say(bytes(200_000))
    assert len(await take(viewer)) == FRAME_BYTES


async def test_a_guest_that_does_not_read_holds_nobody_up(
    shared: SharedConsole, consoles: Consoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_console, "WRITE_SECONDS", 0.01)
    await shared.join()
    consoles.last.reads_input.clear()
    async with asyncio.timeout(5):
        await shared.write(b"lost")
    consoles.last.reads_input.set()
    await shared.write(b"kept")
    assert consoles.last.typed == b"kept"


async def test_a_console_that_does_not_open_is_given_up(
    shared: SharedConsole, consoles: Consoles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_console, "OPEN_SECONDS", 0.01)
    consoles.delay = 60
    with pytest.raises(UnavailableError, match="did not open"):
        await shared.join()


async def test_a_refusal_is_handed_on_and_the_next_may_try(shared: SharedConsole, consoles: Consoles) -> None:
    consoles.refusal = ConflictError("The machine does not run.")
    with pytest.raises(ConflictError):
        await shared.join()
    consoles.refusal = None
    await shared.join()


async def test_the_number_of_viewers_is_bounded(shared: SharedConsole) -> None:
    for _ in range(shared_console.MOST_VIEWERS):
        await shared.join()
    with pytest.raises(ConflictError, match="viewers already"):
        await shared.join()
