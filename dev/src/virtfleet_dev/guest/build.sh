#!/bin/bash
# Build the test guest from Debian packages: vmlinuz, initrd.img and guest.qcow2 (SeaBIOS, syslinux).   usage: build.sh OUT_DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$work/bin" "$root"/{bin,sbin,proc,sys,dev,tmp,run,var/run,etc,lib/modules,mnt}

# The kernel's package is unpacked, not installed: this machine's own boot stays as it is.
cd "$work"
version=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
apt-get -qq -o APT::Sandbox::User=root download "$version" >/dev/null
dpkg -x linux-image-*.deb kernel
release=${version#linux-image-}
cp "kernel/boot/vmlinuz-$release" "$work/bin/vmlinuz"
depmod -b "$work/kernel" "$release"

cp /bin/busybox "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"; done
for program in /usr/sbin/qemu-ga; do
  cp "$program" "$root/bin/"
  ldd "$program" | grep -oE '/[^ ]+\.so[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
modules=(virtio_pci virtio_blk virtio_scsi sd_mod sr_mod cdrom isofs virtio_net virtio_console virtio_balloon
  virtio-rng virtio_mem pvpanic-mmio pvpanic-pci button evdev)
for module in "${modules[@]}"; do
  modprobe -d "$work/kernel" -S "$release" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
done | awk '!seen[$0]++' | while read -r file; do
  cp "$file" "$root/lib/modules/"
  basename "$file" >>"$root/etc/modules.list"
done
install -m 755 "$here/init" "$root/init"
install -m 755 "$here/uevent-handler" "$here/dhcp-script" "$root/bin/"
install -m 755 "$here/shutdown" "$root/sbin/shutdown"
find "$root" -exec touch -h -d @0 {} +
(cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --reproducible) | gzip -1n >"$work/bin/initrd.img"

# A FAT file system over the whole disk is the least that a BIOS boots.
disk=$work/disk.raw
truncate -s 40M "$disk"
export SOURCE_DATE_EPOCH=0
mkfs.vfat -i 76666c74 -n GUEST --invariant "$disk" >/dev/null
syslinux --install "$disk"
for file in "$work/bin/vmlinuz" "$work/bin/initrd.img" "$here/syslinux.cfg"; do mcopy -m -i "$disk" "$file" ::; done
qemu-img convert -O qcow2 "$disk" "$work/bin/guest.qcow2"
rm -rf "$out"
mv "$work/bin" "$out"
