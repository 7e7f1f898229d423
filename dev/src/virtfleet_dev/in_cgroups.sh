#!/bin/bash
# Run a program in the cgroups of a node.   usage: in_cgroups.sh GROUP "CONTROLLER …" PROGRAM [ARGUMENT …]
set -e
for controller in $2; do echo $$ >"/sys/fs/cgroup/$controller/$1/cgroup.procs"; done
shift 2
exec "$@"
