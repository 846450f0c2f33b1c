#!/bin/bash
# tools.sh FOLDER: driverctl and dpdk-devbind of this machine's Debian, downloaded and unpacked into FOLDER, not installed.
set -e
mkdir -p "${1:?usage: tools.sh FOLDER}/debs/partial"; cd "$1"
[ "$(id -u)" != 0 ] || apt-get -qq update
(cd debs && apt-get -qq download -o APT::Sandbox::User=root driverctl dpdk)
for d in debs/*.deb; do dpkg -x "$d" .; done
for d in lib bin sbin; do [ ! -d "$d" ] || { mkdir -p "usr/$d"; cp -a "$d/." "usr/$d/"; rm -r "$d"; }; done
rm -rf debs
