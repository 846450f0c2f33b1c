"""Jobs that are killed, refused or interrupted at every moment, and what must be true afterwards.

One runner for jobs in processes of their own, and one way to enumerate moments. What a backend must do is
the contract's to say.
"""
