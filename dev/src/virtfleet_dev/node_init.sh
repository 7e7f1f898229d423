#!/bin/bash
# pid 1 of a node: give it mounts of its own, then keep virtlogd and libvirtd running, as a host's systemd does.
set -u
controllers=$2 name=$3 directory=$4 hosts=$5
hostname "$name"
mount --bind "$hosts" /etc/hosts
mkdir -p /etc/libvirt /run/libvirt /var/lib/libvirt /var/log/libvirt /var/cache/libvirt /var/lib/virtfleet
mount --bind "$directory/etc" /etc/libvirt
mount --bind "$directory/run" /run/libvirt
mount --bind "$directory/lib" /var/lib/libvirt
mount --bind "$directory/log" /var/log/libvirt
mount --bind "$directory/cache" /var/cache/libvirt
mount --bind "$directory/virtfleet" /var/lib/virtfleet
mount -t tmpfs tmpfs /run/lock

# A sysfs of its own shows this node's network, and its cgroup roots keep two nodes' machines apart.
umount -l /sys/fs/cgroup
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /sys/fs/cgroup
for controller in $controllers; do
  mkdir -p "/sys/fs/cgroup/$controller"
  mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
done

rm -f /run/libvirt/*.pid /run/libvirt/*-sock* /run/libvirtd.pid
rm -rf /run/libvirt/qemu
export HOME=/root
keep() { # keep PROGRAM [ARGUMENT …]: start it again whenever it ends, unless it is held
  while :; do
    [[ -e $directory/hold/$1 ]] || "/usr/sbin/$1" "${@:2}"
    sleep 0.2
  done
}
keep virtlogd -f /etc/libvirt/virtlogd.conf -p /run/libvirt/virtlogd.pid &
keep libvirtd -l -f /etc/libvirt/libvirtd.conf -p /run/libvirt/libvirtd.pid &
while :; do wait -n || sleep 1; done
