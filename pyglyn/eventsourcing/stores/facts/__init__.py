"""Facts: events that belong to no aggregate but carry tags. A decision rests on a query over them, and is
committed if nothing that matches the query has come since: a dynamic consistency boundary.

Layer: eventsourcing, stores.
"""
