"""The steps of a plan that limit what a running guest takes of its host, as values like all others."""

from dataclasses import dataclass

from virtfleet_node.core.limits import CardLimit, CpuQuota


@dataclass(frozen=True)
class LimitCpu:
    """Change the limit of a running guest's vCPUs."""

    quota: CpuQuota

    def __str__(self) -> str:
        """Say it in words."""
        return (
            f"limit CPU ({self.quota.total} of {self.quota.period} us)" if self.quota.total > 0 else "limit CPU (none)"
        )


@dataclass(frozen=True)
class LimitCard:
    """Change the limit towards a running guest's network card."""

    device: str
    limit: CardLimit

    def __str__(self) -> str:
        """Say it in words."""
        limit = f"{self.limit.peak} kB/s, burst {self.limit.burst} KiB" if self.limit.peak else "none"
        return f"limit network card {self.device} ({limit})"
