"""Tests on a real kernel, a real IOMMU and a real Xen, inside QEMU; see README.md here."""
