"""What the hypervisor tells of its own accord: keys only, never state. Who is told looks for himself."""

from typing import Protocol


class Listener(Protocol):
    """Called in the event loop; must return at once."""

    def machine_changed(self, uid: str) -> None:
        """Something happened to a machine's domain."""

    def agent_connected(self, uid: str) -> None:
        """The guest agent of a machine has come up."""

    def devices_changed(self) -> None:
        """Something happened to the host's devices."""

    def connected(self) -> None:
        """Events flow from now on; what happened before may have been missed."""

    def disconnected(self) -> None:
        """Nothing is known until `connected` is called again."""
