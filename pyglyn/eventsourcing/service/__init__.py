"""Aggregates as a service of a node: the server, its front, one lane an aggregate.

Layer: eventsourcing, service.
"""
