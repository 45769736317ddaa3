"""Queries, the readers of events: live and durable, with what they could not process.

Layer: eventsourcing, queries.
"""
