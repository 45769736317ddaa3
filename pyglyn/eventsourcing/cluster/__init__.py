"""Stores and services as other nodes reach them: calls, owners, broadcasts, remote readers.

Layer: eventsourcing, cluster.
"""
