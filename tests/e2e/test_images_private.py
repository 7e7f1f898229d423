"""An image behind a password and a private authority, end to end: who learns the password, and who does not."""

import base64
import os
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from fleet import Fleet, eventually
from identities import Identities
from virtfleet_operator.enrolment.certificates import serving_purpose
from virtfleet_operator.enrolment.contexts import build_server_context, load_pair

PASSWORD = "hunter2-and-more"
EXPECTED = "Basic " + base64.b64encode(f"bob:{PASSWORD}".encode()).decode()
CONTENT = os.urandom(16 << 20)
SLOW_BYTES = 256 << 10


class Private(BaseHTTPRequestHandler):
    """Gives the file, slowly, to who knows the password; it can go on where a transfer broke off."""

    starts: ClassVar[list[int]] = []
    slow = threading.Event()

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != EXPECTED:
            self.send_error(401)
            return
        start = int(self.headers.get("Range", "bytes=0-")[6:-1])
        self.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("ETag", '"one"')
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        for at in range(start, len(CONTENT), SLOW_BYTES):
            self.wfile.write(CONTENT[at : at + SLOW_BYTES])
            if self.slow.is_set():
                time.sleep(0.1)  # a slow line: the daemon is killed in the middle

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def private(fleet: Fleet) -> Iterator[tuple[str, str]]:
    """A server on the fabric; its URL and its authority."""
    authority = Identities().authority
    host = fleet.cluster.fabric.host_address
    context: ssl.SSLContext = build_server_context()
    load_pair(context, authority.issue(serving_purpose((host,))))
    server = ThreadingHTTPServer((host, 0), Private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    Private.slow.set()
    yield f"https://{host}:{server.server_address[1]}/disk.raw", authority.ca_pem
    Private.slow.clear()
    server.shutdown()
    server.server_close()


def test_a_private_image_survives_its_daemon_and_keeps_its_secret(fleet: Fleet, private: tuple[str, str]) -> None:
    url, ca_pem = private
    http = {"url": url, "caBundle": ca_pem, "secretRef": {"name": "mirror"}}
    fleet.apply("VMImage", "private", {"source": {"http": http}})
    eventually(
        lambda: fleet.condition("private", "Ready", "vmimage").get("reason") == "SecretNotFound",
        "it says that the Secret is not there",
    )
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mirror"}}
    fleet.cluster.kubectl.apply(
        {**secret, "stringData": {"username": "bob", "password": PASSWORD}}, namespace="default"
    )
    eventually(lambda: fleet.status("private", "vmimage").get("progress") not in {None, "0%"}, "something has come")
    (home,) = fleet.status("private", "vmimage")["nodes"]
    node = next(node for node in fleet.cluster.nodes if node.name == home["name"])
    fleet.cluster.daemon(node).kill()
    Private.slow.clear()
    fleet.cluster.start_daemon(node)
    fleet.wait_ready("private", "vmimage")
    uid = fleet.get("private", "vmimage")["metadata"]["uid"]
    assert (node.directory / "virtfleet/pools/default/images" / uid / "disk").read_bytes() == CONTENT
    assert Private.starts[-1] > 0, "the second daemon went on where the first was killed"
    fleet.delete("private", kind="vmimage")
    fleet.cluster.kubectl.run("delete", "secret", "mirror")
    assert [
        path
        for path in written(fleet)
        if PASSWORD.encode() in (found := path.read_bytes()) or EXPECTED.encode() in found
    ] == []


def written(fleet: Fleet) -> list[Path]:
    """Return every file that daemons and operator have written and that is not the disk of a machine."""
    nodes = [path for node in fleet.cluster.nodes for path in (node.directory / "virtfleet").rglob("*")]
    logs = list((fleet.cluster.directory / "log").rglob("*"))
    return [
        path for path in (*nodes, *logs) if path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 26
    ]
