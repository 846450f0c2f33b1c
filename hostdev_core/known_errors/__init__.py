"""Messages of hypervisors and of the kernel about lent devices: what they mean, and what helps.

A file of TOML for each program holds them; `table.py` reads it into values, `reading.py` finds them in
a log, `mentions.py` the devices that a line names. Nothing here knows a host: it is texts only.
"""
