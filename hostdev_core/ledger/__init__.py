"""The ledger: which device is whose, in one SQLite file that all processes of a host share.

The file, its rows' form, its lock, and whether it is the host's and of this boot. The meaning of a record
is decided elsewhere: here it is kept, whole or not at all.
"""
