"""Processes, threads, signals and locks that every change of the host runs in.

An operation's lock, threads with deadlines, deferred signals, descriptors that no fork keeps. Nothing here
knows a device, a driver or a plugin.
"""
