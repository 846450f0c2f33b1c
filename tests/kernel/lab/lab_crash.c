// SPDX-License-Identifier: GPL-2.0
/*
 * A PCI driver that crashes the kernel's thread in it: built by setup.sh against the lab's kernel.
 * It has no ids and takes what a driver_override names it for. Two parameters, which may be written
 * in /sys/module/lab_crash/parameters, say where it crashes.
 */
#include <linux/module.h>
#include <linux/pci.h>

static bool in_probe, in_remove;
module_param(in_probe, bool, 0644);
module_param(in_remove, bool, 0644);

static void lab_crash(void)
{
	*(volatile int *)NULL = 0;
}

static int lab_probe(struct pci_dev *dev, const struct pci_device_id *id)
{
	if (in_probe)
		lab_crash();
	return 0;
}

static void lab_remove(struct pci_dev *dev)
{
	if (in_remove)
		lab_crash();
}

static struct pci_driver lab_driver = {
	.name = "lab_crash",
	.probe = lab_probe,
	.remove = lab_remove,
};
module_pci_driver(lab_driver);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("crashes in a probe or a remove, for tests");
