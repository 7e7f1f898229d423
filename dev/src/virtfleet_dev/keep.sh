#!/bin/bash
# Run a program, and again whenever it ends, as systemd or a kubelet does.   usage: keep.sh PROGRAM [ARGUMENT …]
# Both are in one process group. SIGTERM ends both: the program first, however long it takes.
set -u
trap 'trap "" TERM; kill -TERM 0; wait; exit' TERM
while :; do
  "$@" &
  wait $!
  read -rt 0.5 <> <(:) # sleeps without a process of its own, so that all of this one's children are the program's
done
