"""The simulated kernel: its driver core, buses, drivers and nodes, acting on files.

It behaves as a real one was seen to. How a test asks for a machine, and what a test may do to it, stands
in hostdev_core.simulated.
"""
