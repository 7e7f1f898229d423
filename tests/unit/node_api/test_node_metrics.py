"""What a daemon tells of itself, its machines and their disks, as Prometheus reads it."""

from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from polling import until
from virtfleet_api.report import MachineReport, NetworkReport, Phase, UplinkReport
from virtfleet_node.agent.metrics import Sources, register
from virtfleet_node.agent.node_metrics import NodeFacts, NodeState
from virtfleet_node.agent.queue import KeyedQueue
from virtfleet_node.agent.queue_metrics import QueueMetrics
from virtfleet_node.core.disk_io import DiskIo, DiskIoFigure
from virtfleet_node.hypervisor.disk_io import parse_stats

WEB = {"namespace": "shop", "machine": "web"}
AT = datetime(2026, 1, 1, tzinfo=UTC)


def told(**sources: Any) -> CollectorRegistry:
    registry = CollectorRegistry()
    register(registry, Sources(**sources))
    return registry


def report(**change: Any) -> MachineReport:
    fields = {"uid": "u", "namespace": "shop", "name": "web", "phase": Phase.RUNNING}
    return MachineReport.model_validate(fields | change)


def test_a_machine_tells_its_phase_and_what_it_has() -> None:
    running = report(
        started_at=AT, vcpus=2, memory_bytes=1 << 30, balloon_bytes=1 << 20, reservation_hz=10**9, agent_connected=True
    )
    registry = told(machines=lambda: [running])
    words = ("start_time_seconds", "vcpus", "memory_bytes", "balloon_bytes", "cpu_reserved_hertz", "agent_connected")
    found = [registry.get_sample_value(f"virtfleet_node_machine_{word}", WEB) for word in words]
    assert found == [AT.timestamp(), 2, 1 << 30, 1 << 20, 1e9, 1]
    assert registry.get_sample_value("virtfleet_node_machine_restart_required", WEB) == 0
    assert registry.get_sample_value("virtfleet_node_machine_phase", {**WEB, "phase": "Running", "reason": ""}) == 1


def test_a_machine_that_crashes_tells_why_and_how_often_and_nothing_of_a_start() -> None:
    looping = report(phase=Phase.CRASH_LOOP, reason="BackOff", restarts=3, restart_required=("cpu.cores",))
    registry = told(machines=lambda: [looping])
    phase = {**WEB, "phase": "CrashLoopBackOff", "reason": "BackOff"}
    assert registry.get_sample_value("virtfleet_node_machine_phase", phase) == 1
    assert registry.get_sample_value("virtfleet_node_machine_restarts", WEB) == 3
    assert registry.get_sample_value("virtfleet_node_machine_restart_required", WEB) == 1
    assert registry.get_sample_value("virtfleet_node_machine_start_time_seconds", WEB) is None


def test_a_disk_tells_what_the_guest_has_read_and_written() -> None:
    io = DiskIo(1000, 10, 2_000_000_000, 500, 5, 500_000_000)
    registry = told(disk_io=lambda: [DiskIoFigure("shop", "web", "root", io)])
    words = ("read_bytes", "reads", "read_seconds", "written_bytes", "writes", "write_seconds")
    found = [registry.get_sample_value(f"virtfleet_node_disk_{word}_total", WEB | {"disk": "root"}) for word in words]
    assert found == [1000, 10, 2, 500, 5, 0.5]


def test_libvirts_counters_are_those_of_the_target_and_an_empty_drive_has_none() -> None:
    stats = {
        "block.count": 2,
        "block.0.name": "vda",
        "block.0.rd.bytes": 1000,
        "block.0.rd.reqs": 10,
        "block.0.rd.times": 7,
        "block.0.wr.bytes": 500,
        "block.0.wr.reqs": 5,
        "block.0.wr.times": 3,
        "block.1.name": "sda",
    }
    assert parse_stats(stats) == {"vda": DiskIo(1000, 10, 7, 500, 5, 3)}
    assert parse_stats({}) == {}


def test_a_node_tells_what_it_has_and_whether_libvirtd_is_there() -> None:
    facts = NodeFacts("hv-1", "9.0.0", "7.2.0", "kvm", cpus=8, cpu_frequency_hz=2 * 10**9, memory_bytes=1 << 34)
    state = NodeState(libvirt_connected=lambda: False, certificate_expires_at=lambda: AT)
    registry = told(facts=facts, state=state)
    words = ("cpus", "cpu_frequency_hertz", "memory_bytes", "libvirt_up", "certificate_expiration_timestamp_seconds")
    found = [registry.get_sample_value(f"virtfleet_node_{word}") for word in words]
    assert found == [8, 2e9, 1 << 34, 0, AT.timestamp()]
    assert b'node="hv-1"' in generate_latest(registry)


def test_a_node_without_a_network_engine_says_nothing_of_one() -> None:
    network = NetworkReport(connected=False, uplinks=(UplinkReport(interface="eth1", problem="There is none."),))
    alone = told(state=NodeState(network=lambda: network))
    assert alone.get_sample_value("virtfleet_node_ovn_connected") is None
    assert alone.get_sample_value("virtfleet_node_uplink_up", {"interface": "eth1"}) == 0
    engaged = told(state=NodeState(network=lambda: network, has_southbound=lambda: True))
    assert engaged.get_sample_value("virtfleet_node_ovn_connected") == 0
    assert told().get_sample_value("virtfleet_node_certificate_expiration_timestamp_seconds") is None


async def test_the_queue_tells_of_each_look_and_whether_it_failed() -> None:
    registry = CollectorRegistry()

    async def work(key: str) -> None:
        if key == "bad":
            raise ValueError(key)

    def looks(result: str) -> float | None:
        return registry.get_sample_value("virtfleet_node_reconciles_total", {"result": result})

    queue = KeyedQueue(work, 1, QueueMetrics(registry))
    assert (looks("ok"), looks("error")) == (0, 0), "both are there before anything has happened"
    queue.add("good")
    queue.add("bad")
    assert registry.get_sample_value("virtfleet_node_queue_depth") == 2
    queue.start()
    await until(lambda: (looks("ok"), looks("error")) == (1, 1))
    assert registry.get_sample_value("virtfleet_node_queue_depth") == 0
    assert registry.get_sample_value("virtfleet_node_reconcile_seconds_count") == 2
    await queue.stop()
