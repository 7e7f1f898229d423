"""The fleet as a whole."""

from typing import Final

from virtfleet_dev.dashboards.panel import BAD_FROM, GOOD_FROM, RATE, Panel, shares, stat

_ERRORS: Final = 'result="error"'

FLEET: Final[dict[str, tuple[Panel, ...]]] = {
    "Now": (
        stat("Operators that lead", "count(virtfleet_leader_epoch > 0) or vector(0)", "none", GOOD_FROM),
        stat("Nodes not heard", "sum(1 - virtfleet_vmnode_up)", "none", BAD_FROM),
        stat("Machines", "sum(virtfleet_machines)", "none"),
        stat("Machines on no node", 'sum(virtfleet_machines{status="Unschedulable"}) or vector(0)', "none", BAD_FROM),
        stat("Snapshots that failed", 'sum(virtfleet_snapshots{phase="Failed"}) or vector(0)', "none", BAD_FROM),
        stat("Alerts", 'count(ALERTS{alertname=~"Virtfleet.*", alertstate="firing"}) or vector(0)', "none", BAD_FROM),
    ),
    "Machines and nodes": (
        Panel("Machines by status", (("sum by (status) (virtfleet_machines)", "{{status}}"),), "none", stacked=True),
        Panel("Nodes by contact", (("sum by (contact) (virtfleet_nodes)", "{{contact}}"),), "none", stacked=True),
        Panel(
            "vCPUs promised",
            (
                ("sum(virtfleet_vmnode_allocated_vcpus)", "promised"),
                ("sum(virtfleet_vmnode_allocatable_vcpus)", "may be promised"),
            ),
            "none",
        ),
        Panel(
            "Memory promised",
            (
                ("sum(virtfleet_vmnode_allocated_memory_bytes)", "promised"),
                ("sum(virtfleet_vmnode_allocatable_memory_bytes)", "may be"),
            ),
            "bytes",
        ),
        shares(
            "Memory promised, by node",
            "max by (node) (virtfleet_vmnode_allocated_memory_bytes / virtfleet_vmnode_allocatable_memory_bytes)",
            "{{node}}",
        ),
        shares(
            "CPU reserved, by node",
            "max by (node) (virtfleet_vmnode_reserved_cpu_hertz / virtfleet_vmnode_reservable_cpu_hertz)",
            "{{node}}",
        ),
        shares(
            "Pools in use",
            "max by (node, pool) (1 - virtfleet_node_pool_free_bytes / virtfleet_node_pool_capacity_bytes)",
            "{{node}} {{pool}}",
        ),
        Panel(
            "Time from creation to running",
            tuple(
                (
                    f"histogram_quantile({share}, sum by (le) (rate(virtfleet_machine_start_seconds_bucket{RATE})))",
                    f"{round(share * 100)} %",
                )
                for share in (0.5, 0.95)
            ),
            "s",
        ),
    ),
    "Snapshots and images": (
        Panel("Snapshots by phase", (("sum by (phase) (virtfleet_snapshots)", "{{phase}}"),), "none", 8, stacked=True),
        Panel("Restores by phase", (("sum by (phase) (virtfleet_restores)", "{{phase}}"),), "none", 8, stacked=True),
        Panel("Images by phase", (("sum by (phase) (virtfleet_images)", "{{phase}}"),), "none", 8, stacked=True),
    ),
    "Operator": (
        Panel("Looks, by kind", ((f"sum by (kind) (rate(virtfleet_reconciles_total{RATE}))", "{{kind}}"),), "ops"),
        Panel(
            "Looks that failed, by kind",
            ((f"sum by (kind) (rate(virtfleet_reconciles_total{{{_ERRORS}}}{RATE}))", "{{kind}}"),),
            "ops",
        ),
        Panel(
            "Time from a change to its look",
            tuple(
                (
                    f"histogram_quantile({share}, sum by (le) (rate(virtfleet_queue_wait_seconds_bucket{RATE})))",
                    f"{round(share * 100)} %",
                )
                for share in (0.5, 0.99)
            ),
            "s",
        ),
        Panel("Keys that wait", (("sum(virtfleet_queue_depth)", "keys"),), "none"),
        Panel(
            "Requests to the API server, by status",
            ((f"sum by (status) (rate(virtfleet_api_requests_total{RATE}))", "{{status}}"),),
            "reqps",
        ),
        Panel("Writes, by kind", ((f"sum by (kind) (rate(virtfleet_writes_total{RATE}))", "{{kind}}"),), "wps"),
    ),
}
