"""The API of virtfleet: its kinds, their parsing, and the contracts between its processes.

Everything here is data: frozen pydantic models and pure functions on them. No I/O, no clock, no Kubernetes client.
"""
