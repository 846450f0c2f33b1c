"""Values: addresses, domains, devices, records, steps and plans.

What they are and how they go to JSON and back stands here. Nothing here reads or writes anything: no file,
no sysfs, no ledger; and nothing here imports another room.
"""
