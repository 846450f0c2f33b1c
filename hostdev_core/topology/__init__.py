"""Draw where each device sits: root buses, bridges, hubs, IOMMU groups, NUMA nodes, and who has what.

`tree.py` puts the facts about a host's devices into a tree of values, `labels.py` puts each into the words
that every picture shows; `svg.py` and `page.py` make one file each, which needs nothing from elsewhere.
The command shows the same tree in a terminal.
"""
