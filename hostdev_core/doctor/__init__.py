"""The host as a whole: what keeps its devices from being lent, and what an administrator should know.

Each check reads, and yields findings, which are values; nothing is changed, and no rule is made here: what
may be lent is decided in planning.
"""
