"""Plugins: found, checked, registered, and called.

The driver table, the hooks bound to a connection, the plugins' state drivers, and the URIs that choose a
driver. Nothing here lends a device.
"""
