#!/bin/bash
# Make the namespaces of a node and run its pid 1.   usage: node_enter.sh NETNS "CONTROLLER …" NAME DIRECTORY HOSTS
here=$(dirname "$0")
exec bash "$here/in_cgroups.sh" "$1" "$2" \
  nsenter --net="/run/netns/$1" \
  unshare --mount --uts --ipc --pid --cgroup --fork --kill-child --mount-proc --propagation private \
  bash "$here/node_init.sh" "$@"
