#!/bin/bash
# Unpack prometheus and promtool of Debian's package into a folder, without installing it. Idempotent.
set -euo pipefail
folder=$1
[[ -x $folder/prometheus && -x $folder/promtool ]] && exit
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
sudo=$( ((EUID)) && echo sudo || true)
apt-get download -qq prometheus 2>/dev/null || { $sudo apt-get update -qq && apt-get download -qq prometheus; }
dpkg-deb -x prometheus_*.deb unpacked
mkdir -p "$folder"
mv unpacked/usr/bin/prometheus unpacked/usr/bin/promtool "$folder"
