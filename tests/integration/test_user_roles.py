"""The table of docs/howto/access.md, every cell asked of a real API server by tokens of ServiceAccounts."""

import asyncio
import itertools
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import yaml

from made_up_console import MadeUpConsole
from operator_rig import Rig, rig
from virtfleet_api.kinds import KINDS
from virtfleet_api.names import GROUP, SUBRESOURCES_API_VERSION, SUBRESOURCES_GROUP
from virtfleet_dev.control_plane import ControlPlane, free_port
from virtfleet_dev.paths import checkout, program
from virtfleet_operator.subresources.documents import RESOURCES

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROLES = checkout() / "charts" / "virtfleet" / "files" / "user-roles.yaml"
TABLE = checkout() / "docs" / "howto" / "access.md"
WHO = ("anybody", "view", "edit", "admin", "fleet-view", "fleet-admin")
IN_NAMESPACE = ("view", "edit", "admin")
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
STATUSES = tuple(f"{kind.plural}/status" for kind in KINDS)
YES, NO = "yes", "\N{EN DASH}"
SHOP, OTHER = "shop", "other"
MACHINES = f"/apis/{GROUP}/v1alpha1/namespaces/{SHOP}/virtualmachines"
REACH = f"/apis/{SUBRESOURCES_API_VERSION}/namespaces/{SHOP}"
MACHINE = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VirtualMachine", "spec": {"memory": {"guest": "256Mi"}}}

Cell = tuple[str, str, str]
"""Who, verb, resource."""


def matrix() -> dict[Cell, bool]:
    """Read the table."""
    rows = [line.strip("| \n").split(" | ") for line in TABLE.read_text().splitlines() if line.startswith("| ")]
    header, *rest = rows
    assert tuple(header[3:]) == WHO
    cells: dict[Cell, bool] = {}
    for _, resources, verbs, *answers in rest:
        named = STATUSES if resources == "`*/status`" else resources.split(", ")
        for resource, verb, (who, answer) in itertools.product(
            named, verbs.split(", "), zip(WHO, answers, strict=True)
        ):
            assert (who, verb, resource) not in cells, f"{verb} {resource} is there twice"
            assert answer in {YES, NO}
            cells[who, verb, resource] = answer == YES
    return cells


@dataclass
class Access:
    """The API server, as seen by somebody."""

    fleet: Rig
    tls: ssl.SSLContext
    tokens: dict[str, str]

    async def ask(
        self, who: str, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Send a request; return its status and the answer."""
        headers["Authorization"] = f"Bearer {self.tokens[who]}"
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, self.fleet.control_plane.server + path, json=body, headers=headers, ssl=self.tls
            ) as response,
        ):
            return response.status, await response.json()

    async def may(self, who: str, verb: str, resource: str, namespace: str) -> bool:
        """Ask the API server by a SelfSubjectAccessReview."""
        kind, _, subresource = resource.partition("/")
        group = SUBRESOURCES_GROUP if subresource not in ("", "status") else GROUP
        namespaced = next(k.namespaced for k in KINDS if k.plural == kind)
        attributes = {"group": group, "resource": kind, "subresource": subresource, "verb": verb, "name": "web"}
        if namespaced:
            attributes["namespace"] = namespace
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        code, answer = await self.ask(who, "POST", path, review)
        assert code == 201, answer
        allowed: bool = answer["status"]["allowed"]
        return allowed

    async def answers(self, namespace: str, cells: Iterator[Cell]) -> dict[Cell, bool]:
        """Ask for many cells, sixteen at a time."""
        slots = asyncio.Semaphore(16)

        async def one(cell: Cell) -> bool:
            async with slots:
                return await self.may(*cell, namespace)

        asked = list(cells)
        return dict(zip(asked, await asyncio.gather(*(one(cell) for cell in asked)), strict=True))


def bindings() -> Iterator[dict[str, Any]]:
    """Yield the ServiceAccounts and what each is given."""
    for namespace in (SHOP, OTHER):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    for who in WHO:
        metadata = {"name": who, "namespace": SHOP}
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        if who == "anybody":
            continue
        inside = who in IN_NAMESPACE
        yield {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding" if inside else "ClusterRoleBinding",
            "metadata": metadata if inside else {"name": f"test-{who}"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": who if inside else f"virtfleet-{who}",
            },
            "subjects": [{"kind": "ServiceAccount", "name": who, "namespace": SHOP}],
        }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def access(control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Access]:
    kubectl = control_plane.kubectl
    async with rig(control_plane, tmp_path_factory.mktemp("access")) as fleet:
        await asyncio.to_thread(kubectl.apply, ROLES, *bindings(), namespace=SHOP)
        served = {"host": "127.0.0.1", "port": free_port(), "externalName": "localhost"}
        await fleet.start_operator(subresources=served)
        await fleet.add_node("node-a")
        tls = ssl.create_default_context(cafile=control_plane.authority.pair.certificate)
        found = Access(fleet, tls, {who: await token_of(fleet, who) for who in WHO})
        await fleet.eventually(lambda: found.may("admin", "create", "vmsnapshots", SHOP), "the roles are aggregated")
        await asyncio.to_thread(
            kubectl.run, "wait", "--for=condition=Available", "apiservice/v1alpha1.subresources.virtfleet.io"
        )
        yield found
        ours = ",".join(f"{kind}.{GROUP}" for kind in ("virtualmachines", "vmimages", "vmsnapshots"))
        await asyncio.to_thread(kubectl.run, "delete", ours, "-n", SHOP, "--all")
        await asyncio.to_thread(kubectl.run, "delete", "namespace", SHOP, OTHER)
    names = [f"clusterrolebinding/test-{who}" for who in ("fleet-view", "fleet-admin")]
    await asyncio.to_thread(kubectl.run, "delete", *names, "apiservice/v1alpha1.subresources.virtfleet.io")
    await asyncio.to_thread(kubectl.run, "delete", "-f", str(ROLES))


async def token_of(fleet: Rig, who: str) -> str:
    """Return a token of the ServiceAccount, by TokenRequest."""
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    made = await fleet.client.create(f"/api/v1/namespaces/{SHOP}/serviceaccounts/{who}/token", request)
    token: str = made["status"]["token"]
    return token


async def test_the_table_speaks_of_everything_that_is_served() -> None:
    told = {(verb, resource) for _, verb, resource in matrix()}
    kinds = set(itertools.product(VERBS, (kind.plural for kind in KINDS)))
    statuses = set(itertools.product(("get", "update", "patch"), STATUSES))
    reached = {(verb, one["name"]) for one in RESOURCES["resources"] for verb in one["verbs"]}
    assert (kinds | statuses | reached) - told == set()


async def test_every_cell_of_the_table_is_what_the_api_server_says(access: Access) -> None:
    wanted = matrix()
    found = await access.answers(SHOP, iter(wanted))
    assert {cell: allowed for cell, allowed in found.items() if allowed is not wanted[cell]} == {}


async def test_a_role_in_one_namespace_is_worth_nothing_in_another(access: Access) -> None:
    cells = [cell for cell, allowed in matrix().items() if cell[0] in IN_NAMESPACE and allowed]
    everybody = {(verb, resource) for who, verb, resource in cells if matrix()["anybody", verb, resource]}
    found = await access.answers(OTHER, iter(cells))
    assert {cell for cell, allowed in found.items() if allowed} == {c for c in cells if c[1:] in everybody}


def make_console(access: Access, uid: str) -> MadeUpConsole:
    """Give a machine a console that nobody has used."""
    made = access.fleet.nodes["node-a"].daemon.consoles[uid] = MadeUpConsole()
    return made


async def typed(console: MadeUpConsole) -> bool:
    return bytes(console.typed).endswith(b"root\r")


async def left(console: MadeUpConsole) -> bool:
    return console.closed


async def running_machine(access: Access, name: str) -> tuple[str, str]:
    """Have edit create a machine; return its path and its UID."""
    code, made = await access.ask("edit", "POST", MACHINES, {**MACHINE, "metadata": {"name": name}})
    assert code == 201, made
    path, uid = f"{MACHINES}/{name}", made["metadata"]["uid"]

    async def runs() -> bool:
        return (await access.ask("view", "GET", path))[1].get("status", {}).get("printableStatus") == "Running"

    await access.fleet.eventually(runs, f"{name} runs")
    return path, uid


async def test_view_sees_a_machine_and_changes_nothing(access: Access) -> None:
    path, _ = await running_machine(access, "seen")
    code, answer = await access.ask("view", "POST", MACHINES, {**MACHINE, "metadata": {"name": "mine"}})
    assert (code, answer["reason"]) == (403, "Forbidden")
    assert (await access.ask("view", "DELETE", path))[0] == 403
    assert (await access.ask("anybody", "GET", path))[0] == 403
    assert (await access.ask("view", "GET", f"/api/v1/namespaces/{SHOP}/secrets"))[0] == 403
    code, ports = await access.ask("view", "GET", f"{REACH}/virtualmachines/seen/ports")
    assert (code, ports["items"]) == (200, [])
    snapshots = path.replace("virtualmachines/seen", "vmsnapshots")
    wanted = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VMSnapshot", "metadata": {"name": "one"}}
    wanted["spec"] = {"virtualMachine": "seen"}
    assert (await access.ask("view", "POST", snapshots, wanted))[0] == 403
    assert (await access.ask("edit", "POST", snapshots, wanted))[0] == 201
    assert (await access.ask("edit", "DELETE", f"{snapshots}/one"))[0] == 200


async def test_nobody_writes_a_status(access: Access) -> None:
    path, _ = await running_machine(access, "honest")
    change, merge = {"status": {"printableStatus": "Paused"}}, "application/merge-patch+json"
    for who in WHO:
        headers = {"Content-Type": merge}
        code, answer = await access.ask(who, "PATCH", f"{path}/status", change, **headers)
        assert (code, answer["reason"]) == (403, "Forbidden"), who
    # An update of the object leaves the status alone: it is a subresource.
    code, changed = await access.ask("edit", "PATCH", path, change, **{"Content-Type": merge})
    assert (code, changed["status"]["printableStatus"]) == (200, "Running")


async def test_a_console_opens_for_edit_and_tells_view_what_is_missing(access: Access, tmp_path: Path) -> None:
    _, uid = await running_machine(access, "spoken")
    console = make_console(access, uid)
    path = f"{REACH}/virtualmachines/spoken/console"
    for who in ("anybody", "view", "fleet-admin"):
        code, answer = await access.ask(who, "GET", path)
        assert (code, answer["reason"]) == (403, "Forbidden"), who
        assert 'cannot get resource "virtualmachines/console"' in answer["message"]
    for who in ("edit", "admin"):
        console.say(f"login of {who}: ".encode())
        headers = {"Authorization": f"Bearer {access.tokens[who]}"}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(access.fleet.control_plane.server + path, headers=headers, ssl=access.tls) as opened,
        ):
            assert await opened.receive_bytes(timeout=10) == f"login of {who}: ".encode()
            await opened.send_bytes(b"root\r")

            await access.fleet.eventually(lambda: typed(console), "what is typed arrives")  # noqa: B023 -- awaited here
        await access.fleet.eventually(lambda: left(console), "the node lets the console go")  # noqa: B023 -- the same
        console = make_console(access, uid)
    config = yaml.safe_load(access.fleet.control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": access.tokens["view"]}
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(config))
    refused = await asyncio.create_subprocess_exec(
        program("kubectl-vm"),
        *("console", "spoken", "-n", SHOP, "--kubeconfig", kubeconfig),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    said = (await refused.communicate())[1].decode()
    assert refused.returncode
    assert 'cannot get resource "virtualmachines/console"' in said
    assert "Traceback" not in said


async def test_an_upload_is_for_edit(access: Access) -> None:
    images = f"/apis/{GROUP}/v1alpha1/namespaces/{SHOP}/vmimages"
    image = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VMImage", "metadata": {"name": "sent"}}
    image["spec"] = {"source": {"upload": {}}}
    assert (await access.ask("view", "POST", images, image))[0] == 403
    assert (await access.ask("edit", "POST", images, image))[0] == 201
    path = f"{REACH}/vmimages/sent/upload"
    for method in ("GET", "PUT"):
        code, answer = await access.ask("view", method, path)
        assert (code, answer["reason"]) == (403, "Forbidden")
        assert 'resource "vmimages/upload"' in answer["message"]

    async def ready() -> bool:
        return (await access.ask("view", "GET", f"{images}/sent"))[1].get("status", {}).get("phase") == "Ready"

    await access.fleet.eventually(ready, "the made-up node says that it has the whole image")
    # Edit has come through to what judges uploads.
    code, answer = await access.ask("edit", "PUT", f"{path}?offset=0")
    assert (code, answer["reason"]) == (409, "Conflict"), answer


async def test_an_admin_gives_a_console_to_somebody_who_looks(access: Access) -> None:
    roles = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SHOP}"
    rule = {"apiGroups": [SUBRESOURCES_GROUP], "resources": ["virtualmachines/console"], "verbs": ["get"]}
    role = {"metadata": {"name": "console"}, "rules": [rule]}
    binding = {
        "metadata": {"name": "console"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "console"},
        "subjects": [{"kind": "ServiceAccount", "name": "anybody", "namespace": SHOP}],
    }
    assert (await access.ask("edit", "POST", f"{roles}/roles", role))[0] == 403
    assert (await access.ask("admin", "POST", f"{roles}/roles", role))[0] == 201
    assert (await access.ask("admin", "POST", f"{roles}/rolebindings", binding))[0] == 201
    await access.fleet.eventually(lambda: access.may("anybody", "get", "virtualmachines/console", SHOP), "it is given")
    assert not await access.may("anybody", "get", "virtualmachines/vnc", SHOP)
    assert (await access.ask("admin", "DELETE", f"{roles}/rolebindings/console"))[0] == 200
    # Nobody gives what they do not hold.
    more = {"metadata": {"name": "more"}, "rules": [{**rule, "apiGroups": [GROUP], "resources": ["vmnodes"]}]}
    assert (await access.ask("admin", "POST", f"{roles}/roles", more))[0] == 403


async def test_the_fleet_admin_makes_what_everybody_may_name(access: Access) -> None:
    classes = f"/apis/{GROUP}/v1alpha1/vmclasses"
    small = {"apiVersion": f"{GROUP}/v1alpha1", "kind": "VMClass", "metadata": {"name": "small-of-roles"}}
    small["spec"] = {"cpu": {"cores": 1}, "memory": {"guest": "256Mi"}}
    assert (await access.ask("admin", "POST", classes, small))[0] == 403
    code, answer = await access.ask("fleet-admin", "POST", classes, small)
    assert code == 201, answer
    assert (await access.ask("anybody", "GET", f"{classes}/small-of-roles"))[0] == 200
    nodes = f"/apis/{GROUP}/v1alpha1/vmnodes/node-a"
    assert (await access.ask("admin", "GET", nodes))[0] == 403
    assert (await access.ask("fleet-view", "GET", nodes))[0] == 200
    away = {"spec": {"maintenance": True}}
    headers = {"Content-Type": "application/merge-patch+json"}
    assert (await access.ask("fleet-view", "PATCH", nodes, away, **headers))[0] == 403
    assert (await access.ask("fleet-admin", "PATCH", nodes, away, **headers))[0] == 200
    assert (await access.ask("fleet-admin", "DELETE", f"{classes}/small-of-roles"))[0] == 200
