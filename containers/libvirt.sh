#!/bin/sh
# libvirtd or virtlogd, in the foreground, with its sockets in /run/libvirt. Who is root may use them.
#   libvirtd | virtlogd [ARGUMENT…]
set -eu
case ${1-} in
libvirtd | virtlogd)
  program=$1
  shift
  mkdir -p /run/libvirt /var/lib/libvirt/qemu /var/log/libvirt/qemu /var/cache/libvirt/qemu
  rm -f "/run/$program.pid" "/run/libvirt/$program.pid" # of a container that was killed
  exec "$program" --pid-file "/run/libvirt/$program.pid" "$@"
  ;;
*)
  echo "usage: libvirtd | virtlogd [ARGUMENT…]" >&2
  exit 2
  ;;
esac
