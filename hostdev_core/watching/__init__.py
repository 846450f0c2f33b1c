"""Follow what happens to a host's devices, and count them for a monitor, without changing anything.

The kernel's events and the changes of the ledger's file say when to look; what has happened is the difference
between two looks. No decision is made here, and nothing is written but the file of `hostdev metrics`.
"""
