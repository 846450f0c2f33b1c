"""The harness: each call of a backend, disturbed at every moment of it, on a machine of its own.

A *scenario* (scenarios.py) names a machine and the call. A *moment* is what `Host.watch` tells of: a
write, the load of a module, a transaction. A *disturbance* (disturbances.py) injects a *fault* at the nth
moment: a kill, a write that fails, a ledger that cannot be used, a signal, another card. A *trial*
(trial.py) holds the world afterwards against the one before the call and the one after it, and keeps each
*loss*. A *job* (jobs.py) is one scenario with some disturbances, run in a process of its own.

Which calls a backend must survive is for the contract to say (contract_parts/disturbed.py).
"""
