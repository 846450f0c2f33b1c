"""A change in a process of its own, which goes on when its caller is left or killed.

The caller's side, the worker's side, and the pipe between them. What the worker does is the caller's call:
nothing here knows how devices are lent.
"""
