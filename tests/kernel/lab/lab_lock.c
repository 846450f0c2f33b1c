// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps the lock of one PCI or USB device, as a reset or a disconnect that hangs does: built by setup.sh
 * against the lab's kernel. The name of the device, written to /sys/module/lab_lock/parameters/device,
 * takes its lock; nothing written there lets go of it.
 */
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/usb.h>

static struct task_struct *keeper;
static struct device *kept;
static DECLARE_COMPLETION(taken);

static int keep(void *unused)
{
	device_lock(kept);
	complete(&taken);
	set_current_state(TASK_INTERRUPTIBLE);
	while (!kthread_should_stop()) {
		schedule();
		set_current_state(TASK_INTERRUPTIBLE);
	}
	__set_current_state(TASK_RUNNING);
	device_unlock(kept);
	return 0;
}

static void let_go(void)
{
	if (!keeper)
		return;
	kthread_stop(keeper);
	put_device(kept);
	keeper = NULL;
	kept = NULL;
}

static int match_usb(struct usb_device *device, void *name)
{
	if (strcmp(dev_name(&device->dev), name))
		return 0;
	kept = get_device(&device->dev);
	return 1;
}

static int set_device(const char *value, const struct kernel_param *param)
{
	char name[32];

	if (strscpy(name, value, sizeof(name)) < 0)
		return -EINVAL;
	strim(name);
	let_go();
	if (!*name)
		return 0;
	kept = bus_find_device_by_name(&pci_bus_type, NULL, name);
	if (!kept && !usb_for_each_dev(name, match_usb))
		return -ENODEV;
	reinit_completion(&taken);
	keeper = kthread_run(keep, NULL, "lab_lock");
	if (IS_ERR(keeper)) {
		int error = PTR_ERR(keeper);

		keeper = NULL;
		put_device(kept);
		kept = NULL;
		return error;
	}
	wait_for_completion(&taken);
	return 0;
}

static const struct kernel_param_ops device_ops = { .set = set_device };
module_param_cb(device, &device_ops, NULL, 0200);

static int __init lab_lock_init(void)
{
	return 0;
}

static void __exit lab_lock_exit(void)
{
	let_go();
}

module_init(lab_lock_init);
module_exit(lab_lock_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("keeps the lock of a device, for tests");
