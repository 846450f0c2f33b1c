"""Decisions: what a request means, what refuses it, and the steps that would carry it out.

Rules are plain functions, one file for each bus; the planner asks them in order. Only looks: nothing here
writes to the kernel or to the ledger.
"""
