"""Captures: a machine as a document, made of a real one and replayed as a simulated host.

The document's form, how it is read from a machine, and how a host is built from it. No behaviour: that is
the simulated kernel's.
"""
