"""NUMA: on which cells of the host machines lie, and which of its CPUs they use. Pure."""
