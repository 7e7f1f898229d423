# Part of node_init.sh: Open vSwitch and ovn-controller. They are killed, never asked to end: an ovn-controller that
# is asked to `exit` takes its chassis and every flow of the node with it.
# Read: $name, $directory, $underlay.   Needs: own, keep.
own ovs-etc /etc/openvswitch
own ovs-run /run/openvswitch
own ovs-log /var/log/openvswitch
own ovn-run /run/ovn
own ovn-log /var/log/ovn
rm -f /run/openvswitch/* /run/ovn/*
database=/etc/openvswitch/conf.db
[[ -e $database ]] || ovsdb-tool create "$database" /usr/share/openvswitch/vswitch.ovsschema

set_up_host() { # what an administrator sets once per host
  ovs-vsctl --retry --timeout=60 --no-wait init -- set open . \
    external_ids:system-id="$name" external_ids:hostname="$name" \
    external_ids:ovn-encap-type=geneve external_ids:ovn-encap-ip="$underlay" \
    external_ids:ovn-bridge-datapath-type=netdev
}
# In user space a tunnel ends at an address of a bridge, and the bridge's device goes when ovs-vswitchd does.
set_up_underlay() {
  ovs-vsctl --retry --timeout=60 --may-exist add-br br-phy -- set bridge br-phy datapath_type=netdev \
    -- --may-exist add-port br-phy u0 -- set interface br-phy mtu_request=1600 &&
    ip addr replace "$underlay/24" dev br-phy && ip link set br-phy up
}
keep_switching() {
  while :; do
    if [[ ! -e $directory/hold/ovs-vswitchd ]]; then
      ovs-vswitchd unix:/run/openvswitch/db.sock --pidfile -vconsole:off --log-file &
      vswitchd=$!
      until set_up_underlay; do sleep 0.2; done &
      setting_up=$!
      wait "$vswitchd"
      kill "$setting_up" 2>/dev/null
    fi
    sleep 0.2
  done
}
keep ovsdb-server "$database" --remote=punix:/run/openvswitch/db.sock --pidfile -vconsole:off --log-file &
until [[ -S /run/openvswitch/db.sock ]]; do sleep 0.02; done # ovs-vsctl would try again after a second
set_up_host
keep_switching &
keep ovn-controller unix:/run/openvswitch/db.sock --pidfile -vconsole:off --log-file=/var/log/ovn/ovn-controller.log &
