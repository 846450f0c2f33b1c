#!/bin/bash
# setup.sh LAB [ROOT SUITE]: fills the folder LAB with a Debian kernel, Xen and its tools: those of this machine's Debian 12,
# or of SUITE for the Debian 13 in ROOT. The packages are downloaded and unpacked there, never installed. LAB/root is the
# guest's second root layer, LAB/*.cpio* are the initial file systems.
set -e
SRC=$(cd "$(dirname "$0")" && pwd); mkdir -p "${1:?usage: setup.sh LAB [ROOT SUITE]}"; LAB=$(cd "$1" && pwd); ROOT=$2 SUITE=$3
"$SRC/install.sh"
. "$SRC/packages.sh"
mkdir -p debs/partial root/usr tmp
T=$LAB/tmp; trap 'rm -rf "$T"' EXIT
cp "$SRC/root-init" "$LAB/"
PACKAGES=$(kernel)
case $SUITE in
  "")
    PACKAGES+=" xen-hypervisor-4.17-amd64 xen-utils-4.17 xen-utils-common xenstore-utils libxenmisc4.17 libxencall1 libxendevicemodel1
      libxenevtchn1 libxenforeignmemory1 libxengnttab1 libxenhypfs1 libxenstore4 libxentoolcore1 libxentoollog1 libyajl2"
    PACKAGES+=" driverctl libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients libvirt0 libparted2 libpcap0.8 libssh-4" ;;
  *-backports)
    PACKAGES+=" driverctl/sid"
    get apt-get -qq install -y --download-only --no-install-recommends qemu-system-x86 \
      libvirt-daemon libvirt-daemon-driver-{qemu,nodedev} libvirt-clients ;;
esac
# shellcheck disable=SC2086
(cd debs && get apt-get -qq download $PACKAGES)

rm -rf debs/partial debs/lock
for d in debs/*.deb; do
  case $d in debs/linux-*|debs/xen-hypervisor*) ;; *) dpkg -x "$d" root ;; esac
done
# All below usr/: a lib/ in this layer would hide the guest's link /lib -> usr/lib.
for d in lib bin sbin; do [ ! -d root/$d ] || { mkdir -p root/usr/$d; cp -a root/$d/. root/usr/$d/; rm -r root/$d; }; done
rm -f root/usr/lib/udev/rules.d/*driverctl*  # it is for systemd
if [ -n "$ROOT" ]; then HYPERVISOR=$ROOT; else dpkg -x debs/xen-hypervisor*.deb "$T"; HYPERVISOR=$T; fi
zcat "$HYPERVISOR"/boot/xen-4.*-amd64.gz > xen
for d in debs/linux-{image,binary,modules,base}-*.deb; do [ ! -e "$d" ] || dpkg -x "$d" "$T"; done
MODULES=$(dirname "$(ls -d "$T"/{usr/,}lib/modules/*/kernel 2>/dev/null)"); KV=$(basename "$MODULES")
cp "$(ls "$T/boot/vmlinuz-$KV" "$MODULES/vmlinuz" 2>/dev/null)" vmlinuz
mkdir -p root/usr/lib/modules; mv "$MODULES" root/usr/lib/modules/
# Modules of our own, against the headers of this kernel: their paths lead to where they would be installed.
headers debs/linux-headers-*.deb debs/linux-kbuild-*.deb
mkdir "$T/own"; cp "$SRC"/*.c "$T/own/"; echo 'obj-m := lab_crash.o lab_lock.o' > "$T/own/Makefile"
modules own
strip --strip-debug "$T"/own/*.ko
mkdir -p "root/usr/lib/modules/$KV/updates"; cp "$T"/own/*.ko "root/usr/lib/modules/$KV/updates/"
mkdir -p "$T/tree/lib"; ln -s "$LAB/root/usr/lib/modules" "$T/tree/lib/modules"; depmod -b "$T/tree" "$KV"
# The raw kernel spares Xen and every `xl create` a slow decompression: it is where the header says, its size behind it.
"${PYTHON:-python3}" - <<'P'
import struct, subprocess
image = open("vmlinuz", "rb").read()
start, size = struct.unpack_from("<II", image, 0x248)
start += (image[0x1F1] + 1) * 512
packed = image[start : start + size - 4]
tool = "xz" if packed.startswith(b"\xfd7zXZ") else "zstd"
subprocess.run([tool, "-dc"], input=packed, stdout=open("vmlinux", "wb"), check=True)
P
strip -s vmlinux

# cpio OUT INIT MODULE...: an initial file system of busybox, INIT and the modules with what they depend on, in load order.
initial() {
  local out=$1 init=$2 ko name t; shift 2; t=$(mktemp -d -p "$T"); mkdir -p "$t/bin" "$t/m"
  cp /bin/busybox "$t/bin/"; cp "$SRC/$init" "$t/init"; chmod 755 "$t/init"; : > "$t/m/order"
  for m in "$@"; do
    for ko in $(modprobe -d "$T/tree" -S "$KV" --show-depends "$m" | awk '$1=="insmod"{print $2}'); do
      name=$(basename "${ko%.xz}")
      [ -e "$t/m/$name" ] && continue
      case $ko in *.xz) xz -dc "$ko" ;; *) cat "$ko" ;; esac > "$t/m/$name"
      strip --strip-debug "$t/m/$name"; echo "$name" >> "$t/m/order"
    done
  done
  (cd "$t" && find . | cpio -o -H newc --quiet) > "$out"
}
initial initramfs.cpio init virtio_pci virtio_console 9pnet_virtio 9p overlay
initial domu.cpio domu-init xen_pcifront e1000e nvme
gzip -1 -f domu.cpio
rm -rf debs
