"""What the operator counts, for Prometheus. Names are API: dashboards and alerts are built on them."""

from collections.abc import Hashable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60)
_START_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)  # a linked clone takes seconds, a full one minutes


class Metrics:
    """Every metric of the operator."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.reconciles = Counter(
            "virtfleet_reconciles",
            "Looks at an object, by kind and result: ok or error.",
            ("kind", "result"),
            registry=registry,
        )
        self.queue_depth = Gauge("virtfleet_queue_depth", "Keys that wait for a worker.", registry=registry)
        self.queue_wait = Histogram(
            "virtfleet_queue_wait_seconds", "From wish to look.", buckets=_SECONDS, registry=registry
        )
        self.reconcile_time = Histogram(
            "virtfleet_reconcile_seconds", "One look.", ("kind",), buckets=_SECONDS, registry=registry
        )
        self.writes = Counter(
            "virtfleet_writes", "Writes to Kubernetes, by kind and part.", ("kind", "part"), registry=registry
        )
        self.requests = Counter(
            "virtfleet_api_requests",
            "Requests to the API server, without those of watches, by method and HTTP status; error without an answer.",
            ("method", "status"),
            registry=registry,
        )
        self.start_time = Histogram(
            "virtfleet_machine_start_seconds",
            "From a machine's creation to its status Running.",
            buckets=_START_SECONDS,
            registry=registry,
        )
        self.leader_epoch = Gauge(
            "virtfleet_leader_epoch", "Epoch this process leads in, 0 if none.", registry=registry
        )
        self.authority_expiry = Gauge(
            "virtfleet_authority_expiration_timestamp_seconds",
            "When the fleet's certificate authority ends, in seconds since 1970; told by the leader alone.",
            ("name",),
            registry=registry,
        )
        self.northbound = Gauge(
            "virtfleet_ovn_northbound_up",
            "1 unless the last write to OVN's northbound database failed; absent without a network engine. An idle "
            "operator notices a database that is gone with its next write.",
            ("database",),
            registry=registry,
        )
        self._add_objects(registry)

    def _add_objects(self, registry: CollectorRegistry) -> None:
        """Add what is counted of Kubernetes objects when somebody asks."""
        self.streams = Gauge("virtfleet_nodes", "Nodes of the fleet, by contact.", ("contact",), registry=registry)
        self.machines = Gauge("virtfleet_machines", "Machines, by printable status.", ("status",), registry=registry)
        self.snapshots = Gauge(
            "virtfleet_snapshots", "Snapshots, by namespace and phase.", ("namespace", "phase"), registry=registry
        )
        self.restores = Gauge(
            "virtfleet_restores", "Restores, by namespace and phase.", ("namespace", "phase"), registry=registry
        )
        self.images = Gauge(
            "virtfleet_images", "Images, by namespace and phase.", ("namespace", "phase"), registry=registry
        )
        self.vmnode_up = self._of_node("up", "1 while the node is heard, 0 once it has been silent for too long.")
        self.vmnode_condition = Gauge(
            "virtfleet_vmnode_condition",
            "1 for the status that a condition of the VMNode has.",
            ("node", "condition", "status"),
            registry=registry,
        )
        self.vmnode_machines = self._of_node("machines", "Machines bound to the node.")
        self.allocatable_vcpus = self._of_node("allocatable_vcpus", "vCPUs that may be promised to machines.")
        self.allocated_vcpus = self._of_node("allocated_vcpus", "vCPUs that are promised to machines.")
        self.allocatable_memory = self._of_node("allocatable_memory_bytes", "Memory that may be promised to machines.")
        self.allocated_memory = self._of_node("allocated_memory_bytes", "Memory that is promised to machines.")
        self.reservable_cpu = self._of_node("reservable_cpu_hertz", "CPU that may be reserved for machines.")
        self.reserved_cpu = self._of_node("reserved_cpu_hertz", "CPU that is reserved for machines.")

    def _of_node(self, word: str, text: str) -> Gauge:
        return Gauge(f"virtfleet_vmnode_{word}", text, ("node",), registry=self.registry)

    def depth(self, waiting: int) -> None:
        """Keys that wait for a worker."""
        self.queue_depth.set(waiting)

    def done(self, key: Hashable, result: str, waited_seconds: float, worked_seconds: float) -> None:
        """A key has been looked at."""
        kind = str(getattr(key, "kind", key))
        self.reconciles.labels(kind, result).inc()
        self.queue_wait.observe(waited_seconds)
        self.reconcile_time.labels(kind).observe(worked_seconds)

    def answered(self, method: str, status: str) -> None:
        """A request to the API server has ended."""
        self.requests.labels(method, status).inc()
