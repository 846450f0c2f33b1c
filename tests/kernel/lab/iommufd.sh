#!/bin/bash
# iommufd.sh LAB ROOT SUITE: builds into the folder LAB what Debian's kernels leave out, from their own source: IOMMUFD, VFIO's
# character devices and its no-IOMMU mode. That is five modules, for the kernel of SUITE.
set -e
SRC=$(cd "$(dirname "$0")" && pwd); mkdir -p "${1:?usage: iommufd.sh LAB ROOT SUITE}"; LAB=$(cd "$1" && pwd); ROOT=$2 SUITE=$3
. "$SRC/packages.sh"
mkdir -p debs tmp; trap 'rm -rf "$LAB/tmp" "$LAB/debs"' EXIT
KERNEL=$(kernel)
SOURCE=$(sed -nE 's/^linux-headers-([0-9]+\.[0-9]+)\..*-amd64$/linux-source-\1/p' <<< "$KERNEL")
# shellcheck disable=SC2046
(cd debs && get apt-get -qq download $(grep -E 'headers|kbuild' <<< "$KERNEL") "$SOURCE")
headers debs/linux-headers-*.deb debs/linux-kbuild-*.deb
dpkg -x debs/linux-source-*.deb tmp/source
tar -xJf tmp/source/usr/src/"$SOURCE".tar.xz -C tmp --strip-components=1 --wildcards "$SOURCE"/{drivers/vfio,drivers/iommu,lib/interval_tree.c}
# What of it would be a part of the kernel itself becomes a part of iommufd.
grep -v EXPORT_SYMBOL tmp/lib/interval_tree.c > tmp/drivers/iommu/iommufd/span.c
sed -i 's|vfio_compat.o$|vfio_compat.o span.o iova_bitmap.o|' tmp/drivers/iommu/iommufd/Makefile
echo 'obj-m := vfio/ iommu/iommufd/' > tmp/drivers/Makefile
modules drivers CONFIG_IOMMUFD=m CONFIG_VFIO_DEVICE_CDEV=y KCFLAGS="-DCONFIG_IOMMUFD_MODULE=1 -DCONFIG_IOMMUFD_DRIVER=1 \
  -DCONFIG_VFIO_DEVICE_CDEV=1 -DCONFIG_VFIO_NOIOMMU=1 -DCONFIG_INTERVAL_TREE_SPAN_ITER=1" >&2
for m in iommu/iommufd/iommufd vfio/vfio vfio/vfio_iommu_type1 vfio/pci/vfio-pci-core vfio/pci/vfio-pci; do
  strip --strip-debug "tmp/drivers/$m.ko"; cp "tmp/drivers/$m.ko" .; basename "$m.ko"
done > order
