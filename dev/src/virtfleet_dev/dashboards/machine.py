"""One machine."""

from typing import Final

from virtfleet_dev.dashboards.panel import BAD_FROM, RATE, Panel, stat, word

_M: Final = 'namespace="$namespace", machine="$machine"'
_HERTZ: Final = "on (job, instance, node) group_left () virtfleet_node_cpu_frequency_hertz"


def _by_part(part: str, kind: str, words: tuple[str, ...], ending: str) -> tuple[tuple[str, str], ...]:
    """Return a query for each word of a counter that is there for each disk or card."""
    return tuple(
        (
            f"sum by ({part}) (rate(virtfleet_node_{kind}_{word}{ending}_total{{{_M}}}{RATE}))",
            f"{{{{{part}}}}} {word}",
        )
        for word in words
    )


def _latency(kind: str, count: str) -> tuple[str, str]:
    seconds, requests = f"virtfleet_node_disk_{kind}_seconds_total", f"virtfleet_node_disk_{count}_total"
    rates = (f"sum by (disk) (rate({counter}{{{_M}}}{RATE}))" for counter in (seconds, requests))
    return " / ".join(rates), f"{{{{disk}}}} {kind}"


MACHINE: Final[dict[str, tuple[Panel, ...]]] = {
    "Now": (
        word("Phase", f"virtfleet_node_machine_phase{{{_M}}}", "{{phase}} {{reason}}"),
        word("Node", f"virtfleet_node_machine_phase{{{_M}}}", "{{node}}"),
        stat("Runs for", f"time() - max(virtfleet_node_machine_start_time_seconds{{{_M}}})", "s"),
        stat("Starts after crashes", f"max(virtfleet_node_machine_restarts{{{_M}}})", "none", BAD_FROM),
        stat("vCPUs", f"max(virtfleet_node_machine_vcpus{{{_M}}})", "none"),
        stat("Waits for a restart", f"max(virtfleet_node_machine_restart_required{{{_M}}})", "none", BAD_FROM),
    ),
    "CPU and memory": (
        Panel(
            "CPU",
            (
                (f"sum(rate(virtfleet_node_cpu_seconds_total{{{_M}}}{RATE}) * {_HERTZ})", "used"),
                (f"max(virtfleet_node_cpu_entitled_hertz{{{_M}}})", "entitled to, as far as it wants it"),
                (f"max(virtfleet_node_machine_cpu_reserved_hertz{{{_M}}})", "reserved"),
            ),
            "hertz",
        ),
        Panel(
            "CPUs waited for", ((f"sum(rate(virtfleet_node_cpu_wait_seconds_total{{{_M}}}{RATE}))", "waited"),), "none"
        ),
        Panel(
            "Memory",
            (
                (f"max(virtfleet_node_machine_memory_bytes{{{_M}}})", "the guest's"),
                (f"max(virtfleet_node_machine_balloon_bytes{{{_M}}})", "in the balloon"),
            ),
            "bytes",
        ),
        Panel(
            "Space of disks",
            (
                (f"max by (disk) (virtfleet_node_disk_allocated_bytes{{{_M}}})", "{{disk}} taken"),
                (f"max by (disk) (virtfleet_node_disk_capacity_bytes{{{_M}}})", "{{disk}} size"),
            ),
            "bytes",
        ),
    ),
    "Disks": (
        Panel("Read and written", _by_part("disk", "disk", ("read", "written"), "_bytes"), "Bps", 8),
        Panel("Requests", _by_part("disk", "disk", ("reads", "writes"), ""), "iops", 8),
        Panel("Time of a request", (_latency("read", "reads"), _latency("write", "writes")), "s", 8),
    ),
    "Cards": (
        Panel("Received and sent", _by_part("interface", "interface", ("received", "sent"), "_bytes"), "Bps", 8),
        Panel("Packets", _by_part("interface", "interface", ("received", "sent"), "_packets"), "pps", 8),
        Panel("Packets dropped", _by_part("interface", "interface", ("received", "sent"), "_drops"), "pps", 8),
    ),
}
