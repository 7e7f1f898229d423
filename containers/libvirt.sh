#!/bin/sh
# libvirtd or virtlogd, in the foreground, with its sockets in /run/libvirt. Who is root may use them.
#   libvirtd | virtlogd [ARGUMENT…]     they and all guests end with the container
#   host libvirtd | host virtlogd       guests, and virtlogd, which holds their logs, outlive it: for a privileged
#                                       container with the processes, cgroups, devices and folders of its host
set -eu

prepare() {
  mkdir -p /run/libvirt /var/lib/libvirt/qemu /var/log/libvirt/qemu /var/cache/libvirt/qemu
}

leave_the_cgroups_of_the_container() { # whose processes a runtime kills with it
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    echo 0 >/sys/fs/cgroup/cgroup.procs
  else
    for hierarchy in /sys/fs/cgroup/*/; do echo 0 >"${hierarchy}cgroup.procs"; done
  fi
}

virtlogd_of_the_host() {
  pid_file=/run/libvirt/virtlogd.pid
  # The one that an earlier container started may run still: then this one finds its file locked, and says so.
  (leave_the_cgroups_of_the_container && exec virtlogd --daemon --pid-file "$pid_file") || true
  pid=$(cat "$pid_file")
  while kill -0 "$pid"; do sleep 5; done
}

let_qemu_use_kvm() { # whose user is in the group kvm
  group=$(stat --format %g /dev/kvm)
  if [ "$group" != 0 ]; then
    groupmod --non-unique --gid "$group" kvm # its number on the host
  elif [ -z "$(find /dev/kvm -perm -006)" ]; then
    chgrp kvm /dev/kvm
    chmod g+rw /dev/kvm
  fi
}

libvirtd_of_the_host() {
  leave_the_cgroups_of_the_container
  echo 0 >/proc/self/oom_score_adj # guests have it from libvirtd, which may have a better one from its pod
  [ ! -c /dev/kvm ] || let_qemu_use_kvm
  [ ! -e /etc/virtfleet/qemu.conf ] || cat /etc/virtfleet/qemu.conf >/etc/libvirt/qemu.conf
  exec libvirtd --pid-file /run/libvirt/libvirtd.pid
}

case "$* " in
'host virtlogd ')
  virtlogd_of_the_host
  ;;
'host libvirtd ')
  prepare
  libvirtd_of_the_host
  ;;
'libvirtd '* | 'virtlogd '*)
  program=$1
  shift
  prepare
  rm -f "/run/$program.pid" "/run/libvirt/$program.pid" # of a container that was killed
  exec "$program" --pid-file "/run/libvirt/$program.pid" "$@"
  ;;
*)
  echo "usage: [host] libvirtd | [host] virtlogd | libvirtd ARGUMENT… | virtlogd ARGUMENT…" >&2
  exit 2
  ;;
esac
