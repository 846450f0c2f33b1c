"""Answer every question about a device: what it is called, what the host has of it, whose it is, who uses it.

Values for people and for programs, from one place: the commands only show them. What costs little is read
for every device of a listing; what costs time (mounts, routes, processes, attributes under a lock) is asked
where it is shown. The rules about a use are those of the inventory, by which a plan refuses.
"""
