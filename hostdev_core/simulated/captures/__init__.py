"""Captures: a machine as a document, made of a real one and replayed as a simulated host.

The document's form, what is read for it, and what is built from it. No behaviour: that is the simulated
kernel's.
"""
