#!/bin/bash
# Build the test guest from Debian packages: vmlinuz, initrd.img and guest.qcow2 (SeaBIOS, syslinux), the first two again
# as vmlinuz-generic and initrd-generic.img, and these as guest.iso.   usage: build.sh OUT_DIR
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$1
mkdir -p "$(dirname "$out")"
work=$(mktemp -d "$out.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$work/bin" "$root"/{bin,sbin,proc,sys,dev,tmp,run,var/run,etc,lib/modules,mnt}

# The kernels' packages are unpacked, not installed: this machine's own boot stays as it is.
add_kernel() { # FLAVOUR SUFFIX MODULE...   writes vmlinuz and initrd.img with these suffixes
  local flavour=$1 suffix=$2 version release
  shift 2
  mkdir -p "$work/$flavour"
  cd "$work/$flavour"
  version=$(apt-cache depends "linux-image-$flavour" | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -1)
  apt-get -qq -o APT::Sandbox::User=root download "$version" >/dev/null
  dpkg -x linux-image-*.deb kernel
  release=${version#linux-image-}
  cp "kernel/boot/vmlinuz-$release" "$work/bin/vmlinuz$suffix"
  depmod -b "$work/$flavour/kernel" "$release"
  rm -f "$root"/lib/modules/* "$root/etc/modules.list"
  for module in "$@"; do
    modprobe -d "$work/$flavour/kernel" -S "$release" --show-depends "$module" 2>/dev/null | sed -n 's/^insmod \([^ ]*\).*/\1/p'
  done | awk '!seen[$0]++' | while read -r file; do
    cp "$file" "$root/lib/modules/"
    basename "$file" >>"$root/etc/modules.list"
  done
  find "$root" -exec touch -h -d @0 {} +
  (cd "$root" && find . | LC_ALL=C sort | cpio -o -H newc --quiet --reproducible) | gzip -1n >"$work/bin/initrd$suffix.img"
}

cp /bin/busybox "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"; done
ln -s ../bin/busybox "$root/sbin/hwclock" # where the guest agent looks for it when it is told the time
for program in /usr/sbin/qemu-ga; do
  cp "$program" "$root/bin/"
  ldd "$program" | grep -oE '/[^ ]+\.so[^ ]*' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
  done
done
install -m 755 "$here/init" "$root/init"
install -m 755 "$here/uevent-handler" "$here/dhcp-script" "$root/bin/"
install -m 755 "$here/shutdown" "$root/sbin/shutdown"
modules=(virtio_pci virtio_blk virtio_scsi sd_mod sr_mod cdrom isofs virtio_net virtio_console virtio_balloon
  virtio-rng virtio_mem pvpanic-mmio pvpanic-pci button evdev)
add_kernel cloud-amd64 "" "${modules[@]}"
add_kernel amd64 -generic "${modules[@]}" ahci # the cloud kernel has no driver for SATA

# A FAT file system over the whole disk is the least that a BIOS boots.
disk=$work/disk.raw
truncate -s 40M "$disk"
export SOURCE_DATE_EPOCH=0
mkfs.vfat -i 76666c74 -n GUEST --invariant "$disk" >/dev/null
syslinux --install "$disk"
for file in "$work/bin/vmlinuz" "$work/bin/initrd.img" "$here/syslinux.cfg"; do mcopy -m -i "$disk" "$file" ::; done

# The same from a CD-ROM, as an installer starts; its drive is on SATA.
cd_root=$work/cd
mkdir "$cd_root"
cp /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 "$cd_root"
cp "$work/bin/vmlinuz-generic" "$cd_root/vmlinuz"
cp "$work/bin/initrd-generic.img" "$cd_root/initrd.img"
cp "$here/syslinux.cfg" "$cd_root/isolinux.cfg"
genisoimage -quiet -V GUEST -o "$work/bin/guest.iso" -b isolinux.bin -no-emul-boot -boot-load-size 4 -boot-info-table "$cd_root"

qemu-img convert -O qcow2 "$disk" "$work/bin/guest.qcow2"
rm -rf "$out"
mv "$work/bin" "$out"
