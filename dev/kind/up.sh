#!/bin/bash
# A kind cluster with virtfleet, and your machine's libvirtd as its hypervisor. Needs Docker, kind, kubectl, helm, libvirtd.
set -euo pipefail
cd "$(dirname "$0")/../.."

for program in docker kind kubectl helm; do
  command -v "$program" >/dev/null || { echo "make kind-up needs $program" >&2; exit 1; }
done
[[ -S /run/libvirt/libvirt-sock ]] || { echo "libvirtd does not run here: apt install libvirt-daemon-system" >&2; exit 1; }
version=$(sed -n 's/^appVersion: *"\?\([^"]*\)"\?/\1/p' charts/virtfleet/Chart.yaml)

for target in operator node; do
  docker build --target "$target" --tag "localhost/virtfleet/$target:$version" .
done
kind get clusters | grep -qx virtfleet || kind create cluster --config dev/kind/cluster.yaml --wait 120s
kind load docker-image --name virtfleet localhost/virtfleet/{operator,node}:"$version"
helm upgrade --install virtfleet charts/virtfleet --kube-context kind-virtfleet \
  --namespace virtfleet-system --create-namespace --values dev/kind/values.yaml --wait --timeout 5m
kubectl --context kind-virtfleet get vmnode
