"""The doors to the machine: sysfs, modules, udev, xenstore, /proc, /dev, the kernel's log.

One door for each, that a simulated host swaps; every path hangs on the Host. Nothing here knows what a
device is lent for: no rules, no records, no plans.
"""
