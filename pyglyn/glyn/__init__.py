"""Glyn's PubSub and Registry, with Gleam services on the other nodes. Layer: glyn."""

from pyglyn.glyn.pubsub import PubSub, Subscription
from pyglyn.glyn.registry import Registration, Registry
from pyglyn.glyn.subject import send

__all__ = ["PubSub", "Registration", "Registry", "Subscription", "send"]
