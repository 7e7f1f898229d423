"""Certificates of a small fleet, and clients that hold them."""

import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest

from virtfleet_dev.pki import LocalAuthority
from virtfleet_operator.fleet.client import Dialer

EPOCH = 7

Dial = Callable[[int], Dialer]


class Certificates:
    """The fleet's authority, and TLS settings made by it."""

    def __init__(self, folder: Path) -> None:
        self.authority = LocalAuthority(folder, "ca")

    def server(self, name: str) -> ssl.SSLContext:
        pair = self.authority.issue(name, name, server_names=[name])
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.authority.pair.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(pair.certificate, pair.key)
        return context

    def operator(self) -> ssl.SSLContext:
        pair = self.authority.issue("operator", "operator", "virtfleet:operators")
        context = ssl.create_default_context(cafile=self.authority.pair.certificate)
        context.load_cert_chain(pair.certificate, pair.key)
        return context


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def dial(certificates: Certificates) -> AsyncIterator[Dial]:
    """Build what a leader of some epoch calls nodes with."""
    context = certificates.operator()
    async with aiohttp.ClientSession() as session:
        yield lambda epoch: Dialer(session, lambda: context, epoch)
