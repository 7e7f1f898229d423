"""What a new leader knows of the network before it decides anything: all that its predecessor has written down.

Only after that may rows go from OVN's database that no object asks for.
"""

from virtfleet_api.security_group import SecurityGroup
from virtfleet_api.virtual_machine import VirtualMachine
from virtfleet_api.virtual_switch import VirtualSwitch
from virtfleet_operator.core.validate import group_problems, switch_problems
from virtfleet_operator.reconcile.catalog import GROUP, MACHINE, SWITCH
from virtfleet_operator.reconcile.context import Context
from virtfleet_operator.reconcile.ports import restore_ports
from virtfleet_operator.reconcile.security_group import put_group
from virtfleet_operator.reconcile.virtual_switch import put_switch


def restore_network(context: Context) -> None:
    """Have OVN hold what is known, without giving out anything new."""
    if context.network is None:
        return
    _restore_switches(context)
    for stored in context.cache.all(GROUP):
        if isinstance(stored.resource, SecurityGroup) and not group_problems(stored.resource):
            put_group(context, stored.resource)
        else:
            context.network.keep_group(stored.uid)
    for stored in context.cache.all(MACHINE):
        if isinstance(stored.resource, VirtualMachine):
            restore_ports(context, stored.resource)
        else:
            context.network.keep_ports(card.port for card in stored.status.interfaces if card.port)
    _restore_switches(context)  # with the VLANs that ports are in
    context.network.complete()


def _restore_switches(context: Context) -> None:
    for stored in context.cache.all(SWITCH):
        switch = stored.resource
        if isinstance(switch, VirtualSwitch) and not switch_problems(switch):
            put_switch(context, switch)
        elif context.network:
            context.network.keep_switch(stored.key.name)
