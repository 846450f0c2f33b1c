"""Processes, threads, signals and locks: what any change of the host runs in.

An operation's lock, threads with deadlines, signals that wait, descriptors that no fork keeps. Nothing here
knows a device, a driver or a plugin.
"""
