"""What `helm test` runs, beside a real operator and API server: it passes when all answers, or says what does not."""

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

from operator_rig import SYSTEM, Rig, rig
from virtfleet_dev.control_plane import ControlPlane, free_port
from virtfleet_dev.helm import chart
from virtfleet_dev.kube_tools import HELM_3, kube_tools
from virtfleet_dev.kubectl import Kubectl
from virtfleet_operator.kube.api_service import SERVICE_NAME
from virtfleet_operator.kube.paths import API_SERVICES, CONFIG_MAPS, SERVICES

pytestmark = pytest.mark.asyncio(loop_scope="module")

NAME = f"virtfleet-operator.{SYSTEM}.svc"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def fleet(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with rig(control_plane, tmp_path_factory.mktemp("helm-test")) as built:
        yield built
        await built.client.delete(API_SERVICES.object("", "v1alpha1.subresources.virtfleet.io"))
        await built.client.delete(SERVICES.object(SYSTEM, SERVICE_NAME))


async def run(fleet: Rig, folder: Path, ports: dict[str, int], seconds: int) -> tuple[int, str]:
    """Run the script as in a pod: with the variables of Services, a token, and the fleet's authority."""
    cluster = yaml.safe_load(fleet.control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    kubectl = Kubectl(kube_tools(HELM_3).kubectl, fleet.control_plane.kubeconfig)
    (folder / "token").write_text(kubectl.run("-n", SYSTEM, "create", "token", "default").strip())
    (folder / "ca.crt").write_bytes(base64.b64decode(cluster["certificate-authority-data"]))
    (folder / "fleet.crt").write_text(
        (await fleet.client.get(CONFIG_MAPS.object(SYSTEM, "virtfleet-ca")))["data"]["ca.crt"]
    )
    environment = {
        "VIRTFLEET_NAMESPACE": SYSTEM,
        "VIRTFLEET_ACCOUNT": str(folder),
        "VIRTFLEET_CA": str(folder / "fleet.crt"),
        "VIRTFLEET_SECONDS": str(seconds),
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(fleet.control_plane.ports["apiserver"]),
    }
    for service, port in ports.items():
        environment |= {f"{service}_SERVICE_HOST": "127.0.0.1", f"{service}_SERVICE_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        chart() / "files" / "test.py",
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await process.communicate()
    return process.returncode or 0, printed.decode()


async def test_it_passes_when_everything_answers_and_says_what_does_not(fleet: Rig, tmp_path: Path) -> None:
    ports = {"VIRTFLEET_OPERATOR": free_port(), "VIRTFLEET_SUBRESOURCES": free_port()}
    enrolment = {"host": "127.0.0.1", "port": ports["VIRTFLEET_OPERATOR"], "names": [NAME, "127.0.0.1"]}
    subresources = {"host": "127.0.0.1", "port": ports["VIRTFLEET_SUBRESOURCES"], "externalName": "localhost"}
    await fleet.start_operator("one", enrolment=enrolment, subresources=subresources)
    status, printed = await run(fleet, tmp_path, ports, 60)
    assert status == 0, printed
    assert f"{NAME} answers" in printed
    assert "virtualmachines/console" in printed
    await fleet.stop_operator("one")
    status, printed = await run(fleet, tmp_path, ports, 1)
    assert status == 1
    assert "Failed: ConnectionRefusedError" in printed
