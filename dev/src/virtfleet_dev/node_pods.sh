# Part of node_init.sh: what containerd and a kubelet find on a host. Both are started from outside.
# Read: $directory.   Needs: own.
own kubelet /var/lib/kubelet
own containerd /var/lib/containerd
own containerd-run /run/containerd
own cni /var/lib/cni
own pod-logs /var/log/pods
own container-logs /var/log/containers
rm -rf /run/containerd/* /var/lib/cni/*

# The kubelet sets these for the whole machine. Here it finds them set, in files that this node alone sees.
tunable() { # tunable NAME VALUE
  echo "$2" >"$directory/sysctl/${1//\//.}"
  mount --bind "$directory/sysctl/${1//\//.}" "/proc/sys/$1"
}
tunable vm/overcommit_memory 1
tunable vm/panic_on_oom 0
tunable kernel/panic 10
tunable kernel/panic_on_oops 1
tunable kernel/keys/root_maxkeys 1000000
tunable kernel/keys/root_maxbytes 25000000

# A pod may change who may use KVM: here, in this node alone.
if [[ -c /dev/kvm ]]; then
  [[ -c $directory/kvm ]] || cp --archive /dev/kvm "$directory/kvm"
  mount --bind "$directory/kvm" /dev/kvm
fi

# These are the network namespace's own. Services have addresses that nobody else has: kube-proxy sees to them.
echo 1 >/proc/sys/net/ipv4/ip_forward
ip route replace "$(<"$directory/service-network")" dev eth0

# Volumes of pods are mounted while their containers run.
mount --make-rshared /
