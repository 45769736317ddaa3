"""Messages to Kafka: against the broker that ``PYGLYN_TEST_KAFKA`` names (``host:port``), if there is one.

There is no broker among what tests may install, so without one only what needs none is run.
"""

from __future__ import annotations

import os
import pickle
import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from pyglyn.eventsourcing.relay import KafkaPublisher
from pyglyn.eventsourcing.relay.delivery import Message

BROKER = os.environ.get("PYGLYN_TEST_KAFKA", "")


def messages(topic: str, *bodies: str) -> list[Message]:
    return [
        Message(id=f"out/{number}", topic=topic, body=body, created_at=0.0, attempts=0)
        for number, body in enumerate(bodies)
    ]


async def test_without_a_broker_it_fails_and_can_be_started_again():
    to = pickle.loads(pickle.dumps(KafkaPublisher("127.0.0.1:1")))
    for _ in range(2):
        with pytest.raises(KafkaError):
            await to.start()
        await to.close()


@pytest.mark.skipif(not BROKER, reason="no Kafka broker in PYGLYN_TEST_KAFKA")
async def test_a_broker_confirms_each_message_in_order():
    topic = f"pyglyn-{uuid.uuid4().hex}"
    to = KafkaPublisher(BROKER)
    await to.start()
    sent = messages(topic, *(str(number) for number in range(200)))
    assert [each async for each in to.publish(sent)] == sent
    await to.close()
    consumer: Any = AIOKafkaConsumer(topic, bootstrap_servers=BROKER, auto_offset_reset="earliest")
    await consumer.start()
    got = [await consumer.getone() for _ in sent]
    await consumer.stop()
    assert [(each.value.decode(), dict(each.headers)["message-id"].decode()) for each in got] == [
        (each.body, each.id) for each in sent
    ]
