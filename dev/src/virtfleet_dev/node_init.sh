#!/bin/bash
# pid 1 of a node: give it mounts of its own, then keep its services running, as a host's systemd does.
# usage: node_init.sh NETNS "CONTROLLER …" NAME DIRECTORY HOSTS "SERVICE …" UNDERLAY-ADDRESS
set -u
controllers=$2 name=$3 directory=$4 hosts=$5 services=$6 underlay=$7
hostname "$name"
mount --bind "$hosts" /etc/hosts
own() { # own FOLDER PLACE: mount a folder of the node's directory
  mkdir -p "$2"
  mount --bind "$directory/$1" "$2"
}
own etc /etc/libvirt
own run /run/libvirt
own lib /var/lib/libvirt
own log /var/log/libvirt
own cache /var/cache/libvirt
own virtfleet /var/lib/virtfleet
mount -t tmpfs tmpfs /run/lock
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns # as another host has: what one daemon makes there, another must not sweep

# A sysfs of its own shows this node's network, and its cgroup roots keep two nodes' machines apart.
umount -l /sys/fs/cgroup
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
for controller in $controllers; do
  mkdir -p "/sys/fs/cgroup/$controller"
  mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
done

[[ " $services " != *" pods "* ]] || . "$(dirname "$0")/node_pods.sh"
touch "$directory/mounted"

export HOME=/root
keep() { # keep PROGRAM [ARGUMENT …]: start it again whenever it ends, unless it is held
  while :; do
    [[ -e $directory/hold/$1 ]] || "$@"
    sleep 0.2
  done
}
[[ " $services " == *" ovn "* ]] && . "$(dirname "$0")/node_network.sh"
if [[ " $services " == *" libvirt "* ]]; then
  rm -f /run/libvirt/*.pid /run/libvirt/*-sock* /run/libvirtd.pid
  rm -rf /run/libvirt/qemu
  keep virtlogd -f /etc/libvirt/virtlogd.conf -p /run/libvirt/virtlogd.pid &
  keep libvirtd -l -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid &
fi
while :; do wait -n || sleep 1; done
