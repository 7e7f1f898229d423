"""One node, or several."""

from typing import Final

from virtfleet_dev.dashboards.panel import GOOD_FROM, RATE, Panel, stat, word

_N: Final = 'node=~"$node"'
_OF_DAEMONS: Final = "and on (job, instance) virtfleet_node_info"
"""Other programs on the node have metrics of these names, too."""

_LOOKS: Final = "virtfleet_node_reconcile_seconds"
_BY_MACHINE: Final = "{{namespace}}/{{machine}}"

NODE: Final[dict[str, tuple[Panel, ...]]] = {
    "Now": (
        stat("libvirtd", f"min(virtfleet_node_libvirt_up{{{_N}}})", "none", GOOD_FROM),
        stat("OVN", f"min(virtfleet_node_ovn_connected{{{_N}}})", "none", GOOD_FROM),
        stat("Machines", f'count(virtfleet_node_machine_phase{{{_N}, phase="Running"}}) or vector(0)', "none"),
        stat(
            "Certificate ends in", f"min(virtfleet_node_certificate_expiration_timestamp_seconds{{{_N}}}) - time()", "s"
        ),
        word("QEMU", f"virtfleet_node_info{{{_N}}}", "{{hypervisor}} {{qemu_version}}"),
        word("Daemon", f"virtfleet_node_info{{{_N}}}", "{{daemon_version}}"),
    ),
    "CPU and memory": (
        Panel(
            "CPUs used, by machine",
            (
                (f"sum by (namespace, machine) (rate(virtfleet_node_cpu_seconds_total{{{_N}}}{RATE}))", _BY_MACHINE),
                (f"sum(virtfleet_node_cpus{{{_N}}})", "CPUs of the host"),
            ),
            "none",
            stacked=True,
        ),
        Panel(
            "CPUs waited for, by machine",
            (
                (
                    f"sum by (namespace, machine) (rate(virtfleet_node_cpu_wait_seconds_total{{{_N}}}{RATE}))",
                    _BY_MACHINE,
                ),
            ),
            "none",
        ),
        Panel(
            "Memory, by machine",
            (
                (f"sum by (namespace, machine) (virtfleet_node_machine_memory_bytes{{{_N}}})", _BY_MACHINE),
                (f"sum(virtfleet_node_memory_bytes{{{_N}}})", "memory of the host"),
            ),
            "bytes",
            stacked=True,
        ),
        Panel(
            "Free memory, by NUMA cell",
            ((f"sum by (node, cell) (virtfleet_node_numa_free_bytes{{{_N}}})", "{{node}} cell {{cell}}"),),
            "bytes",
            6,
        ),
        Panel(
            "Load, by NUMA cell",
            ((f"max by (node, cell) (virtfleet_node_numa_load{{{_N}}})", "{{node}} cell {{cell}}"),),
            "percentunit",
            6,
        ),
    ),
    "Storage and network": (
        Panel(
            "Pools",
            tuple(
                (f"sum by (node, pool) (virtfleet_node_pool_{word}_bytes{{{_N}}})", f"{{{{node}}}} {{{{pool}}}} {word}")
                for word in ("capacity", "committed", "free")
            ),
            "bytes",
        ),
        Panel(
            "Disks: read and written, by machine",
            tuple(
                (
                    f"sum by (namespace, machine) (rate(virtfleet_node_disk_{word}_bytes_total{{{_N}}}{RATE}))",
                    f"{_BY_MACHINE} {word}",
                )
                for word in ("read", "written")
            ),
            "Bps",
        ),
        Panel(
            "Cards: received and sent, by machine",
            tuple(
                (
                    f"sum by (namespace, machine) (rate(virtfleet_node_interface_{word}_bytes_total{{{_N}}}{RATE}))",
                    f"{_BY_MACHINE} {word}",
                )
                for word in ("received", "sent")
            ),
            "Bps",
        ),
        Panel(
            "Cards: packets dropped, by machine",
            tuple(
                (
                    f"sum by (namespace, machine) (rate(virtfleet_node_interface_{word}_drops_total{{{_N}}}{RATE}))",
                    f"{_BY_MACHINE} {word}",
                )
                for word in ("received", "sent")
            ),
            "pps",
        ),
    ),
    "Daemon": (
        Panel(
            "Looks at machines, by result",
            ((f"sum by (result) (rate(virtfleet_node_reconciles_total{{{_N}}}{RATE}))", "{{result}}"),),
            "ops",
        ),
        Panel(
            "Time of a look at a machine",
            tuple(
                (
                    f"histogram_quantile({share}, sum by (le) (rate({_LOOKS}_bucket{{{_N}}}{RATE})))",
                    f"{round(share * 100)} %",
                )
                for share in (0.5, 0.99)
            ),
            "s",
        ),
        Panel(
            "CPUs used by the daemon",
            ((f"sum by (node) (rate(process_cpu_seconds_total{{{_N}}}{RATE}) {_OF_DAEMONS})", "{{node}}"),),
            "none",
        ),
        Panel(
            "Memory of the daemon",
            ((f"sum by (node) (process_resident_memory_bytes{{{_N}}} {_OF_DAEMONS})", "{{node}}"),),
            "bytes",
        ),
    ),
}
