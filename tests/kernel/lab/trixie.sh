#!/bin/bash
# trixie.sh ROOT: makes the folder ROOT a Debian 13 with the tools that the tests have to do with: debootstrap and apt, from
# the mirror that this machine's own apt is told to use. Needs root. What newer suites have is downloaded from there later.
set -e
ROOT=${1:?usage: trixie.sh ROOT}
[ "$(id -u)" = 0 ] || { echo "the kernel lab makes its Debian 13 with debootstrap, which needs root" >&2; exit 1; }
# A mount name space of our own: whatever happens, no mount is left behind.
[ -n "$IN_TRIXIE_SH" ] || IN_TRIXIE_SH=1 exec unshare -m --propagation private "$0" "$ROOT"
MIRROR=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Component: main' 'Origin: Debian' |
  awk '$2 == "bookworm" {print $1; exit}')
[ -n "$MIRROR" ] || { echo "the kernel lab: this machine's apt has no mirror of Debian's bookworm, so none for trixie" >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
debootstrap --variant=minbase trixie "$ROOT" "$MIRROR" >"$ROOT.log" 2>&1 ||
  { tail -5 "$ROOT.log" >&2; echo "the kernel lab: no Debian 13 (trixie) to be had from $MIRROR; all of it: $ROOT.log" >&2; exit 1; }
for suite in trixie trixie-backports sid; do
  echo "deb [check-valid-until=no signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $suite main"
done >"$ROOT/etc/apt/sources.list"
printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n\n' sid trixie-backports >"$ROOT/etc/apt/preferences.d/lab"
apt-config dump | grep -i '^Acquire::https\?::' >"$ROOT/etc/apt/apt.conf.d/machine" || true
cp /etc/resolv.conf "$ROOT/etc/"
printf '#!/bin/sh\nexit 101\n' >"$ROOT/usr/sbin/policy-rc.d"; chmod 755 "$ROOT/usr/sbin/policy-rc.d"
mount -t proc proc "$ROOT/proc"
apt() { chroot "$ROOT" apt-get -qq -o APT::Sandbox::User=root "$@" >>"$ROOT.log" 2>&1 || { tail -5 "$ROOT.log" >&2; exit 1; }; }
apt update
apt install -y --no-install-recommends udev busybox-static kmod procps pciutils usbutils python3 gcc make libelf1t64 pahole \
  qemu-system-x86 seabios driverctl libvirt-daemon libvirt-daemon-driver-{qemu,nodedev} libvirt-clients \
  xen-hypervisor-4.20-amd64 xen-utils-4.20 xenstore-utils
apt clean
rm -f "$ROOT"/usr/lib/udev/rules.d/*driverctl*  # it is for systemd
