#!/bin/bash
# setup.sh LAB: fills the folder LAB with a Debian kernel, Xen and its tools. The packages are downloaded and unpacked there,
# never installed. LAB/root is the guest's second root layer, LAB/*.cpio* are the initial file systems.
set -e
SRC=$(cd "$(dirname "$0")" && pwd); mkdir -p "${1:?usage: setup.sh LAB}"; LAB=$(cd "$1" && pwd)
"$SRC/install.sh"
cd "$LAB"; mkdir -p debs root
cp "$SRC/root-init" "$LAB/"
# A package list that nobody has refreshed names files that the mirror no longer has.
[ "$(id -u)" != 0 ] || apt-get -qq update
XEN="xen-hypervisor-4.17-amd64 xen-utils-4.17 xen-utils-common xenstore-utils libxenmisc4.17 libxencall1 libxendevicemodel1
 libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxenstore4 libxentoolcore1 libxentoollog1 libyajl2"
PEERS="driverctl libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt0 libparted2 libpcap0.8 libssh-4"
KERNEL=$(apt-cache depends linux-image-amd64 | awk '$1=="Depends:"{print $2; exit}')
HEADERS=linux-headers-${KERNEL#linux-image-}
HEADERS="$HEADERS $(apt-cache depends "$HEADERS" | awk '$1=="Depends:" && $2!~/compiler/{print $2}')"
# apt's sandbox user cannot write here; that is a warning of no consequence.
# shellcheck disable=SC2086
(cd debs && apt-get -qq -o APT::Sandbox::User=root download $XEN $PEERS $HEADERS "$KERNEL")

for d in debs/lib*.deb debs/xen-utils*.deb debs/xenstore*.deb debs/driverctl*.deb; do dpkg -x "$d" root; done
# All below usr/: a lib/ in this layer would hide the guest's link /lib -> usr/lib.
cp -a root/lib/. root/usr/lib/; rm -r root/lib
rm root/usr/lib/udev/rules.d/*  # of driverctl, for systemd
T=$(mktemp -d); trap 'rm -rf "$T"' EXIT
dpkg -x debs/xen-hypervisor*.deb "$T"; zcat "$T"/boot/xen-4.17-amd64.gz > xen-4.17-amd64
dpkg -x debs/linux-image-6*.deb "$T"; KV=$(ls "$T/lib/modules"); cp "$T/boot/vmlinuz-$KV" vmlinuz
mkdir -p root/usr/lib/modules; mv "$T/lib/modules/$KV" root/usr/lib/modules/
# Modules of our own, against the headers of this kernel: their paths lead to where they would be installed.
for d in debs/linux-headers-*.deb debs/linux-kbuild-*.deb; do dpkg -x "$d" "$T/build"; done
sed -i "s|/usr/src|$T/build/usr/src|" "$T/build/usr/src/linux-headers-$KV/Makefile"
mkdir "$T/own"; cp "$SRC"/*.c "$T/own/"; echo 'obj-m := lab_crash.o lab_lock.o' > "$T/own/Makefile"
make -s -C "$T/build/usr/src/linux-headers-$KV" M="$T/own" modules
strip --strip-debug "$T"/own/*.ko
mkdir -p "root/usr/lib/modules/$KV/updates"; cp "$T"/own/*.ko "root/usr/lib/modules/$KV/updates/"
mkdir -p "$T/tree/lib"; ln -s "$LAB/root/usr/lib/modules" "$T/tree/lib/modules"; depmod -b "$T/tree" "$KV"
# The raw kernel spares Xen and every `xl create` a slow decompression.
"${PYTHON:-python3}" - <<'P'
import lzma
packed = open("vmlinuz", "rb").read()
start = packed.find(b"\xfd7zXZ\x00")
open("vmlinux", "wb").write(lzma.LZMADecompressor().decompress(packed[start:]))
P
strip -s vmlinux

# cpio OUT INIT MODULE...: an initial file system of busybox, INIT and the modules with what they depend on, in load order.
initial() {
  local out=$1 init=$2 ko t; shift 2; t=$(mktemp -d -p "$T"); mkdir -p "$t/bin" "$t/m"
  cp /bin/busybox "$t/bin/"; cp "$SRC/$init" "$t/init"; chmod 755 "$t/init"; : > "$t/m/order"
  for m in "$@"; do
    for ko in $(modprobe -d "$T/tree" -S "$KV" --show-depends "$m" | awk '$1=="insmod"{print $2}'); do
      [ -e "$t/m/${ko##*/}" ] && continue
      cp "$(readlink -f "$ko")" "$t/m/${ko##*/}"; strip --strip-debug "$t/m/${ko##*/}"; echo "${ko##*/}" >> "$t/m/order"
    done
  done
  (cd "$t" && find . | cpio -o -H newc --quiet) > "$out"
}
initial initramfs.cpio init virtio_pci virtio_console 9pnet_virtio 9p overlay
initial domu.cpio domu-init xen_pcifront e1000e nvme
gzip -1 -f domu.cpio
rm -rf debs
