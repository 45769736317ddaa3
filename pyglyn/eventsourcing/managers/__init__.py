"""Process managers: what is to follow from events, by commands and in time.

Layer: eventsourcing, managers.
"""
