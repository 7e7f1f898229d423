"""Pass the hypervisor's news on to the daemon, which is made only once the hypervisor has been looked at."""

from virtfleet_node.hypervisor.listener import Listener


class Relay:
    """A listener whose target comes later; what happens before is seen when the daemon looks at everything."""

    def __init__(self) -> None:
        self.target: Listener | None = None

    def machine_changed(self, uid: str) -> None:
        """Pass it on."""
        if self.target is not None:
            self.target.machine_changed(uid)

    def agent_connected(self, uid: str) -> None:
        """Pass it on."""
        if self.target is not None:
            self.target.agent_connected(uid)

    def devices_changed(self) -> None:
        """Pass it on."""
        if self.target is not None:
            self.target.devices_changed()

    def connected(self) -> None:
        """Pass it on."""
        if self.target is not None:
            self.target.connected()

    def disconnected(self) -> None:
        """Pass it on."""
        if self.target is not None:
            self.target.disconnected()
