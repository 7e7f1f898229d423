"""What has passed the network cards of a machine, asked of its node each time: `virtualmachines/ports`."""

from aiohttp import web

from virtfleet_api.names import NODE_LABEL, SUBRESOURCES_GROUP
from virtfleet_operator.fleet.errors import NodeError, NodeRefusedError
from virtfleet_operator.subresources.documents import StatusError
from virtfleet_operator.subresources.ports import USER, Cluster, Counters, Target


class CounterHandlers:
    """Serves virtualmachines/ports."""

    def __init__(self, cluster: Cluster, counters: Counters) -> None:
        self._cluster = cluster
        self._counters = counters

    async def read(self, request: web.Request) -> web.Response:
        """Answer with the counters of every card; of a machine that does not run there are none."""
        target = Target(request.match_info["namespace"], request.match_info["name"])
        user = request[USER]
        refusal = await self._cluster.may_read_ports(user, target)
        if refusal is not None:
            raise StatusError(
                403,
                "Forbidden",
                f'User "{user.name}" may not see the ports of {target}: it needs the verb get on'
                f" virtualmachines/ports in the API group {SUBRESOURCES_GROUP} ({refusal}).",
            )
        machine = await self._cluster.read_machine(target)
        if machine is None:
            raise StatusError(404, "NotFound", f"{target} does not exist.")
        node = machine.labels.get(NODE_LABEL)
        if not node:
            raise StatusError(409, "Conflict", f"{target} is not on a node yet; `kubectl describe` says why.")
        try:
            found = await self._counters.list_interfaces(node, machine.uid)
        except NodeRefusedError as error:
            raise StatusError(409, "Conflict", f"{target} has no ports now: {error}") from error
        except NodeError as error:
            raise StatusError(503, "ServiceUnavailable", f"The node of {target} cannot be reached: {error}") from error
        return web.json_response(found.to_json_dict())
