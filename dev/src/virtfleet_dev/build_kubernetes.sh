#!/bin/bash
# Build programs of Kubernetes v1.20.2, and `pause`, from Debian's source package. What is there already stays as it is.
# usage: build_kubernetes.sh OUT_DIR PROGRAM …   (run under a lock; installs the Go toolchain by apt when it is missing)
set -euo pipefail
out=$1
programs=()
for program in "${@:2}"; do [[ -x $out/$program ]] || programs+=("$program"); done
((${#programs[@]})) || exit 0
wanted() { [[ " ${programs[*]} " == *" $1 "* ]]; }
work=$(mktemp -d "$out.build.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

need=(golang-go golang-github-modern-go-reflect2-dev dpkg-dev)
dpkg-query -W "${need[@]}" >/dev/null 2>&1 || {
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
}

# A source list of our own, from the mirror that the machine is set up for, with lists of its own: /etc/apt stays as it is.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Codename: bookworm' | head -1)
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm main" >"$work/sources.list"
mkdir -p "$work/lists"
apt=(apt-get -qq -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$work/lists" -o APT::Sandbox::User=root)
"${apt[@]}" update
cd "$work"
"${apt[@]}" source kubernetes >/dev/null

export GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local CGO_ENABLED=0 GOPATH=$work/gopath GOCACHE=${GOCACHE:-$work/gocache}
mkdir -p "$GOPATH/src/k8s.io" "$GOPATH/bin" "$work/bin"
ln -s "$(echo "$work"/kubernetes-1.20*/)" "$GOPATH/src/k8s.io/kubernetes"
cd "$GOPATH/src/k8s.io/kubernetes"
package=k8s.io/kubernetes

# The vendored reflect2 1.0.1 copies a runtime structure that changed in Go 1.18: the API server would die on the first
# write of a custom resource. Debian ships the fixed 1.0.2.
rm -f vendor/github.com/modern-go/reflect2/*.go
cp /usr/share/gocode/src/github.com/modern-go/reflect2/*.{go,s} vendor/github.com/modern-go/reflect2/

# The validator of custom resources compares two reflect.Values. With the Go of that time they were never equal; with this
# one they are for the empty string, which would be refused as null. Later Kubernetes asks for nil alone, as here.
sed -i 's/if data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data)) {/if data == nil {/' \
  vendor/github.com/go-openapi/validate/type.go vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go

# A kubelet of this version often leaves a sandbox to its garbage collection, and with it the pod that was deleted: for up
# to a minute. Later ones remove it at once; this one looks more often.
grep -q 'ContainerGCPeriod = time.Minute$' pkg/kubelet/kubelet.go
sed -i 's/ContainerGCPeriod = time.Minute$/ContainerGCPeriod = 2 * time.Second/' pkg/kubelet/kubelet.go

generate_openapi() { # The source package lacks one generated file.
  # Its inputs are those of build/root/Makefile.generated_files.
  local inputs
  go build -o "$GOPATH/bin/openapi-gen" $package/vendor/k8s.io/kube-openapi/cmd/openapi-gen
  inputs=$(grep -rl --include='*.go' '+k8s:openapi-gen=' cmd pkg plugin staging/src/k8s.io/* |
    grep -v -e zz_generated -e '^staging/src/k8s.io/code-generator/' -e '^staging/src/k8s.io/sample-apiserver/' |
    xargs -n1 dirname | sed 's#^staging/src/#vendor/#' | LC_ALL=C sort -u | sed "s#^#$package/#" | paste -sd,)
  "$GOPATH/bin/openapi-gen" -i "$inputs" -p $package/pkg/generated/openapi -O zz_generated.openapi \
    -h vendor/k8s.io/code-generator/hack/boilerplate.go.txt -r "$work/violations" --output-base "$GOPATH/src" 2>"$work/openapi.log"
}
! wanted kube-apiserver || generate_openapi

flags="-s -w"
for stamped in $package/vendor/k8s.io/component-base/version $package/vendor/k8s.io/client-go/pkg/version; do
  for pair in gitVersion=v1.20.2 gitMajor=1 gitMinor=20 gitTreeState=archive buildDate=2021-01-13T13:20:00Z; do
    flags+=" -X $stamped.$pair"
  done
done
for program in "${programs[@]}"; do
  [[ $program != pause ]] || continue
  go build -trimpath -tags providerless,dockerless -ldflags "$flags" -o "$work/bin/" "$package/cmd/$program"
done
! wanted pause || gcc -Os -Wall -static -DVERSION=v1.20.2 -o "$work/bin/pause" build/pause/linux/pause.c
# One by one: whoever runs a program that was there keeps it.
mkdir -p "$out"
mv -n "$work"/bin/* "$out/"
