#!/bin/bash
# Build the kernel's own examples of mediated devices: mtty (serial ports) and mbochs (displays, as a vGPU would be one).
# usage: mdev.sh WORK_DIR RELEASE      leaves mtty.ko and mbochs.ko in WORK_DIR/built
set -euo pipefail
work=$1 release=$2
abi=${release%-amd64}
mkdir -p "$work/built"
cd "$work"
apt-get -qq -o APT::Sandbox::User=root download "linux-headers-$release" "linux-headers-$abi-common" linux-kbuild-6.1 \
  linux-source-6.1 >/dev/null
for package in linux-headers-*.deb linux-kbuild-*.deb; do dpkg -x "$package" .; done
dpkg --fsys-tarfile linux-source-6.1_*.deb | tar -xO ./usr/src/linux-source-6.1.tar.xz |
  tar -xJ --strip-components=3 -C built linux-source-6.1/samples/vfio-mdev
rm ./*.deb
headers=$work/usr/src/linux-headers-$release
# The packages are unpacked here, and their makefiles name where they would be installed.
sed -i "s#/usr/src/#$work/usr/src/#g; s#/usr/lib/#$work/usr/lib/#g" "$headers/Makefile" "$headers/.kernelvariables"
for link in "$work"/usr/src/linux-headers-*/{scripts,tools}; do
  [[ -L $link && $(readlink "$link") == /* ]] && ln -sfn "$work$(readlink "$link")" "$link"
done
echo 'obj-m := mtty.o mbochs.o' >built/Makefile
make -s -C "$headers" M="$work/built" modules
