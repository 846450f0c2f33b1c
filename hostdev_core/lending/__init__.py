"""Changes: a plan is claimed in the ledger, carried out, and undone or given back.

Prepare, reset, and the one way back that reattach, recovery and every undo share. Each write is recorded
before it is made; what may be written was decided in planning.
"""
