"""The simulated kernel: its driver core, buses, drivers and nodes, acting on files.

It behaves as a real one was seen to. The ways in which a test makes a machine and breaks it stand in
hostdev_core.simulated, which this package does not import.
"""
