"""Messages of the outbox for those outside: a process that delivers them, and where to.

Layer: eventsourcing, on top.
"""

from __future__ import annotations

from pyglyn.eventsourcing.relay.delivery import Message, Publisher
from pyglyn.eventsourcing.relay.kafka import KafkaPublisher
from pyglyn.eventsourcing.relay.nats import NatsPublisher
from pyglyn.eventsourcing.relay.process import Relay
from pyglyn.eventsourcing.relay.webhook import WebhookPublisher

__all__ = ["KafkaPublisher", "Message", "NatsPublisher", "Publisher", "Relay", "WebhookPublisher"]
