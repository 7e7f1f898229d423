#!/bin/sh
# A program of OVN or Open vSwitch, in the foreground. What it keeps is in folders that outlive the container.
#   northbound | southbound    a database in /var/lib/ovn; TLS from $TLS_DIRECTORY (tls.key, tls.crt, ca.crt); $LISTEN
#   northd                     between the two, by their sockets in /run/ovn
#   switch-database            Open vSwitch's, in /etc/openvswitch
#   switch                     ovs-vswitchd; $NODE_NAME, $TUNNEL_ADDRESS, $DATAPATH_TYPE are written to the database
#   controller                 ovn-controller
set -eu

database() { # FILE SCHEMA   made if missing, and brought to the schema of this version
  if [ ! -e "$1" ]; then
    ovsdb-tool create "$1" "$2"
  elif [ "$(ovsdb-tool needs-conversion "$1" "$2")" = yes ]; then
    ovsdb-tool convert "$1" "$2"
  fi
}

central() { # nb|sb SCHEMA TABLE PORT [OPTION…]
  file=/var/lib/ovn/ovn$1_db.db
  socket=/run/ovn/ovn$1_db.sock
  schema=$2 table=$3 tool=ovn-$1ctl control=/run/ovn/ovn$1_db.ctl
  target=pssl:$4:${LISTEN:-0.0.0.0}
  shift 4
  mkdir -p /var/lib/ovn /run/ovn
  database "$file" "/usr/share/ovn/${tool%ctl}.ovsschema"
  # What listens is a row of the database. It is there before anybody can connect.
  ovsdb-server --detach --no-chdir --pidfile="$control.pid" --unixctl="$control" --remote="punix:$socket" \
    -vconsole:warn -vsyslog:off "$file"
  "$tool" --db="unix:$socket" --no-leader-only --timeout=30 init -- set-connection "$@" "$target"
  ovs-appctl -t "$control" exit
  while [ -e "$control.pid" ]; do sleep 0.02; done
  tls=${TLS_DIRECTORY:-/etc/ovn/tls}
  exec ovsdb-server "$file" --no-chdir --unixctl="$control" --remote="punix:$socket" \
    --remote="db:$schema,$table,connections" --private-key="$tls/tls.key" --certificate="$tls/tls.crt" \
    --ca-cert="$tls/ca.crt" -vconsole:info -vsyslog:off
}

case ${1-} in
northbound) central nb OVN_Northbound NB_Global 6641 ;;
southbound) central sb OVN_Southbound SB_Global 6642 role=ovn-controller ;;
northd)
  mkdir -p /run/ovn
  exec ovn-northd --no-chdir --ovnnb-db=unix:/run/ovn/ovnnb_db.sock --ovnsb-db=unix:/run/ovn/ovnsb_db.sock \
    --unixctl=/run/ovn/ovn-northd.ctl -vconsole:info -vsyslog:off
  ;;
switch-database)
  mkdir -p /etc/openvswitch /run/openvswitch
  database /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
  exec ovsdb-server /etc/openvswitch/conf.db --no-chdir --pidfile --remote=punix:/run/openvswitch/db.sock \
    --remote=db:Open_vSwitch,Open_vSwitch,manager_options -vconsole:info -vsyslog:off
  ;;
switch)
  set --
  for setting in "system-id=${NODE_NAME-}" "hostname=${NODE_NAME-}" "ovn-encap-ip=${TUNNEL_ADDRESS-}" \
    "ovn-encap-type=${TUNNEL_ADDRESS:+geneve}" "ovn-bridge-datapath-type=${DATAPATH_TYPE-}"; do
    [ -z "${setting#*=}" ] || set -- "$@" "external_ids:$setting"
  done
  ovs-vsctl --retry --timeout=60 --no-wait init
  [ $# = 0 ] || ovs-vsctl --timeout=60 --no-wait set open_vswitch . "$@"
  exec ovs-vswitchd unix:/run/openvswitch/db.sock --no-chdir --pidfile -vconsole:info -vsyslog:off
  ;;
controller)
  mkdir -p /run/ovn
  exec ovn-controller unix:/run/openvswitch/db.sock --no-chdir --pidfile -vconsole:info -vsyslog:off
  ;;
*)
  echo "usage: northbound | southbound | northd | switch-database | switch | controller" >&2
  exit 2
  ;;
esac
