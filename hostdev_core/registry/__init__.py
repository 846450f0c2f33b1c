"""Plugins: found, checked, registered, and called.

The driver table with its rows, the hooks bound to a connection, the URIs that choose a row. Nothing here
lends a device.
"""
