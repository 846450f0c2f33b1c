"""The buses whose devices can be lent: PCI, USB, and what else a Host has.

A bus lists its devices, tells one from the next at the same place, and says which exclude each other. All
that is true of one kind of device alone stands here or in planning; no other room asks for a kind.
"""
