"""Access to the machine: sysfs, modules, udev, xenstore, /proc, /dev, the kernel's log.

One module for each, whose class a simulated host swaps; every path hangs on the Host. Nothing here knows
rules, records or plans.
"""
