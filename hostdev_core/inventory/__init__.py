"""Look at the devices of a host, their owners and their users, without changing anything.

The devices joined with the records of the ledger, the differences between the two, and the processes,
guests and uses that need a device. No decision is made here, and nothing is written but the ledger's file.
"""
