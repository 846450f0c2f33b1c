"""What hostdev costs, measured beside other tools and beside the bare work, all in one run.

    python -m benchmarks --help

A module measures one subject and answers Tables; `report.py` makes the page of them, and `chart.py` its
picture. `rooms.py` is apart: it counts the rooms of hostdev_core that a call enters.
"""
