#!/bin/bash
# Make what images start from where no registry is in reach: Debian 12 as small as `debian:12-slim`, from this machine's mirror.
# usage: build.sh OUT.tar      (root, run under a lock)
set -euo pipefail
out=$1
site() { # CODENAME   prints the mirror of it that this machine is set up for
  apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $1" | head -1
}
key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
sources=()
for suite in bookworm bookworm-updates bookworm-security; do
  mirror=$(site "$suite")
  [[ -z $mirror ]] || sources+=("deb $key $mirror $suite main")
done
# Which mirror that was does not concern those who use the image: they get Debian's own.
debian=$(mktemp)
trap 'rm -f "$debian" "$out.partial"' EXIT
cat >"$debian" <<'END'
deb http://deb.debian.org/debian bookworm main
deb http://deb.debian.org/debian bookworm-updates main
deb http://deb.debian.org/debian-security bookworm-security main
END
unshare --mount mmdebstrap --mode=root --format=tar --quiet --variant=apt \
  --include=usr-is-merged --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-include=/usr/share/doc/*/copyright' --dpkgopt=force-unsafe-io \
  --customize-hook="upload '$debian' /etc/apt/sources.list" \
  --customize-hook='rm -rf "$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/apt/sources.list.d/*' \
  --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*' \
  bookworm - "${sources[@]}" >"$out.partial"
mv "$out.partial" "$out"
