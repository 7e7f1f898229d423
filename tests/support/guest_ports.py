"""What a node does with a connection to a TCP port of a guest, for tests without a guest: frames, empty at the end."""

import asyncio

from aiohttp import WSCloseCode, WSMsgType, web


async def answer_at_the_end(guest: web.WebSocketResponse) -> None:
    """Take everything until the other side has no more, then send it back, and end."""
    received = b""
    async for message in guest:
        assert message.type is WSMsgType.BINARY
        if not message.data:
            break
        received += message.data
    for start in range(0, len(received), 65536):
        await guest.send_bytes(received[start : start + 65536])
    await guest.send_bytes(b"")
    await guest.close(code=WSCloseCode.OK, message=b"Both sides are done.")


async def greet(guest: web.WebSocketResponse) -> None:
    """Say what an SSH server says first, and end at once when the other side has said something."""
    await guest.send_bytes(b"SSH-2.0-dropbear_2022.83\r\n")
    await guest.receive()
    await guest.send_bytes(b"")
    await guest.receive()
    await guest.close(code=WSCloseCode.OK)


async def break_off(guest: web.WebSocketResponse) -> None:
    """Send something, then break."""
    await guest.send_bytes(b"half of it")
    await guest.close(code=WSCloseCode.INTERNAL_ERROR, message=b"The guest broke the connection off: reset.")


async def hold(guest: web.WebSocketResponse) -> None:
    """Say that it is there, and stay."""
    await guest.send_bytes(b"here")
    await asyncio.Event().wait()
