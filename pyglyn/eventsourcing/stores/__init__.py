"""Where events are kept: one interface, memory, SQLite, PostgreSQL, recorders. They know no node.

Layer: eventsourcing, stores.
"""
