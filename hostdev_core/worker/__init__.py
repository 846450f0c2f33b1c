"""Make a change in a process of its own, a worker, which goes on when its caller gives up or dies.

The caller's side, the worker's side, and the pipe between them. The worker makes any call that it is
given: nothing here knows how devices are lent.
"""
