"""A process that holds a connection to a guest until it is killed: python forward_victim.py <JSON of Arguments>."""

import asyncio
import json
import sys
from pathlib import Path

from virtfleet_api.machine import Machine
from virtfleet_api.report import MachineReport, Phase
from virtfleet_node.agent.entry import Entry
from virtfleet_node.agent.forwards import Forwards
from virtfleet_node.host.local_ports import LocalPorts
from virtfleet_node.host.programs import Programs


def running(document: Machine) -> Entry:
    """Return a machine as the daemon knows it while its guest runs."""
    report = MachineReport(uid=document.uid, namespace=document.namespace, name=document.name, phase=Phase.RUNNING)
    return Entry(document, report=report)


async def hold(prefix: list[str], switch: str, root: str, document: Machine, port: int) -> None:
    """Say what the guest's echo server answers, and wait to be killed."""
    forwarder = Forwards(LocalPorts(Programs(prefix), Path(switch), Path(root)), {document.uid: running(document)})
    async with forwarder.open_forward(document.uid, port) as (reader, writer):
        writer.write(b"held\n")
        sys.stdout.write((await reader.readline()).decode())
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    arguments["document"] = Machine.model_validate(arguments["document"])
    asyncio.run(hold(**arguments))
