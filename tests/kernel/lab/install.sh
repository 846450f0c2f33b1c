#!/bin/bash
# Installs what the kernel lab needs on a Debian 12 that has only Python; as another user than root it names what is missing.
set -e
WANTED="qemu-system-x86 seabios ipxe-qemu busybox-static debootstrap kmod cpio binutils xz-utils zstd pciutils usbutils udev util-linux procps gcc-12 make libelf1 strace"
missing=()
for p in $WANTED; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
done
[ ${#missing[@]} = 0 ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "the kernel lab needs these Debian packages: ${missing[*]} (as root: apt-get install --no-install-recommends ${missing[*]})" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends "${missing[@]}"
