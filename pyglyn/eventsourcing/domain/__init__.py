"""Aggregates, envelopes, snapshots, causes and their forms on the wire; pure.

Layer: eventsourcing, domain.
"""
