#!/bin/bash
# Build what a nested host starts from: a QEMU that has SR-IOV, a root file system with libvirt, its kernel and initramfs.
# usage: build.sh OUT_DIR SITE_PACKAGES      (root, run under a lock; nothing is installed on this machine)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1 site_packages=$2
work=$(mktemp -d "$out.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
mkdir "$work/bin"

# The mirrors that this machine is set up for; Debian keeps the next release beside this one.
target() { # CODENAME   prints the mirror of it
  apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $1" | head -1
}
main=$(target bookworm) security=$(target bookworm-security)
key='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
bootstrap=(mmdebstrap --mode=root --format=directory --quiet --aptopt='APT::Install-Recommends "false"'
  --aptopt='Acquire::Languages "none"' --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*'
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io)

# Not installed, only unpacked: QEMU runs in it by way of its own dynamic linker.
unshare --mount "${bootstrap[@]}" --variant=extract --include="$(paste -sd, "$here/tool-packages.txt")" \
  trixie "$work/bin/tools" "deb $key $main trixie main" &
tools=$!

# The newest kernel of the release, and what goes with it.
kernel=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
release=${kernel#linux-image-}
(
  mkdir "$work/kernel"
  cd "$work/kernel"
  apt-get -qq -o APT::Sandbox::User=root download "$kernel" >/dev/null
  dpkg -x linux-image-*.deb .
) &
unpacked=$!
mkdir "$work/mdev"
bash "$here/mdev.sh" "$work/mdev" "$release" >/dev/null &
devices=$!

root=$work/root
unshare --mount "${bootstrap[@]}" --variant=minbase --include="$(paste -sd, "$here/packages.txt")" \
  bookworm "$root" "deb $key $main bookworm main" ${security:+"deb $key $security bookworm-security main"}
wait $unpacked

# What drivers of machines like this need, and no more: 80 of 390 MB.
mkdir -p "$root/lib/modules"
cp -a "$work/kernel/lib/modules/$release" "$root/lib/modules/"
(
  cd "$root/lib/modules/$release/kernel"
  find drivers/net/ethernet -name '*.ko' ! -path '*/igb/*' ! -path '*/igbvf/*' -delete
  find drivers/gpu/drm -mindepth 1 -maxdepth 1 -type d ! -name tiny ! -name ttm ! -name virtio -exec rm -rf {} +
  find fs -mindepth 1 -maxdepth 1 -type d ! -name ext4 ! -name jbd2 ! -name 9p ! -name fscache ! -name netfs \
    ! -name configfs ! -name fuse ! -name overlayfs ! -name nls ! -name autofs ! -name 'binfmt*' -exec rm -rf {} +
  find drivers -mindepth 1 -maxdepth 1 -type d ! -name base ! -name block ! -name char ! -name gpu ! -name iommu \
    ! -name net ! -name pci ! -name vfio ! -name vhost ! -name virtio ! -name virt ! -name dca ! -name i2c ! -name ptp \
    ! -name pps ! -name firmware ! -name watchdog -exec rm -rf {} +
  rm -rf sound drivers/net/{wireless,wwan,can,hamradio,usb,fddi,arcnet,ieee802154}
)
wait $devices
mkdir "$root/lib/modules/$release/extra"
cp "$work"/mdev/built/*.ko "$root/lib/modules/$release/extra/"
strip --strip-debug "$root/lib/modules/$release/extra/"*.ko
depmod -b "$root" "$release"
cp "$work/kernel/boot/vmlinuz-$release" "$work/bin/vmlinuz"

# Files of our own, and the Python packages of the checkout's environment, of the same Debian release.
cp -R --no-preserve=ownership "$here/rootfs/." "$root/"
chmod 755 "$root"/usr/local/sbin/*
mkdir -p "$root/opt/site-packages"
tar -C "$site_packages" --exclude-from="$here/not-shared.txt" -c . | tar -C "$root/opt/site-packages" -x
python3 -m compileall -q -s "$root" -p / "$root/opt/site-packages" || true
ssh-keygen -q -t ed25519 -N '' -C nested -f "$work/bin/key"
install -D -m 600 "$work/bin/key.pub" "$root/root/.ssh/authorized_keys"
chmod 700 "$root/root/.ssh"
cat "$here/qemu.conf" >>"$root/etc/libvirt/qemu.conf"
chroot "$root" systemctl -q enable nested-network.service nested-ready.service
chroot "$root" systemctl -q mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer systemd-timesyncd.service getty@tty1.service systemd-networkd-wait-online.service dpkg-db-backup.timer \
  logrotate.timer libvirt-guests.service

# An initramfs that only mounts the root file system.
ram=$work/ram
mkdir -p "$ram"/{bin,proc,sys,dev,root,modules}
cp "$root/bin/busybox" "$ram/bin/"
ln -s busybox "$ram/bin/sh"
for module in virtio_pci virtio_blk ext4; do
  modprobe -d "$root" -S "$release" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r file; do
  cp "$file" "$ram/modules/"
  basename "$file" >>"$ram/modules/list"
done
install -m 755 "$here/init" "$ram/init"
(cd "$ram" && find . | cpio -o -H newc --quiet) >"$work/bin/initrd"

mke2fs -q -t ext4 -O ^has_journal -m 0 -b 4096 -d "$root" "$work/bin/root.ext4" 2G >/dev/null
wait $tools
rm -rf "$out"
mv "$work/bin" "$out"
