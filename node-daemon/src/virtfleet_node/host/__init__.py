"""The host seen from inside: CPUs, memory, NUMA."""
