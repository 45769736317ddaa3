"""Operating-system processes as children, without nodes or supervisors. Layer: supervision/os.

`kernel` reads and asks, `start` makes an OS process, `child` has its first steps, `processes` looks after
those that run, `deaths` says how they ended, `program` runs external programs. Nothing here knows a node.
"""
