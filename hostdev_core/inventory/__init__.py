"""What is there, whose it is, and who uses it: looks that change nothing.

The devices of a host joined with the ledger, what differs between the two, and what holds or hangs on a
device. No decision is made here, and nothing is written but the ledger's own file.
"""
