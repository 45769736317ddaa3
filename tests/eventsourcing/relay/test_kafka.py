"""Messages to Kafka: against the broker that ``PYGLYN_TEST_KAFKA`` names (``host:port``), else that of librdkafka.

The first is how it was tried with Apache Kafka 4.3.1, by hand: it is not among what tests may install.
"""

from __future__ import annotations

import os
import pickle
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.relay import KafkaPublisher, Relay
from pyglyn.eventsourcing.relay.delivery import Message
from pyglyn.node import Node
from pyglyn.testing import eventually, require
from tests.eventsourcing.queries.totals import status
from tests.eventsourcing.relay.kafka_cluster import NAME, KafkaCluster

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


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    require(NAME, "librdkafka is not installed (apt install librdkafka1)")
    started = KafkaCluster()
    yield started
    started.stop()


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> str:
    if not BROKER:
        made: KafkaCluster = request.getfixturevalue("cluster")
        return made.address
    return BROKER


async def consumed(topic: str, broker: str, count: int) -> list[tuple[str, str]]:
    """Return the bodies and ids of so many messages."""
    consumer: Any = AIOKafkaConsumer(topic, bootstrap_servers=broker, auto_offset_reset="earliest")
    await consumer.start()
    got = [await consumer.getone() for _ in range(count)]
    await consumer.stop()
    return [(each.value.decode(), dict(each.headers)["message-id"].decode()) for each in got]


async def test_a_broker_confirms_each_message_in_order(broker: str):
    topic = f"pyglyn-{uuid.uuid4().hex}"
    to = KafkaPublisher(broker)
    await to.start()
    sent = messages(topic, *(str(number) for number in range(200)))
    assert [each async for each in to.publish(sent)] == sent
    await to.close()
    assert await consumed(topic, broker, 200) == [(each.body, each.id) for each in sent]


async def test_a_relay_lives_through_an_outage_of_the_broker_and_keeps_the_order(
    node: Node, cluster: KafkaCluster
):
    topic = f"pyglyn-{uuid.uuid4().hex}"
    policy = es.FailurePolicy(retries=None, first=0.01, longest=0.1)
    to = KafkaPublisher(cluster.address, request_timeout_ms=1000)
    async with es.open_store("memory:", aggregate_type="t") as store:
        await Relay("out", store=store, topics=[topic], to=to, policy=policy, batch=10).start(node)

        async def delivered() -> int:
            return (await status(node, "out")).processed

        for number in range(30):
            await store.put_outbox([es.OutboxMessage(topic, str(number))])
            if number == 10:
                await eventually(delivered)
                cluster.tell("down")
        assert await store.outbox_size() >= 19
        cluster.tell("up")

        async def is_empty() -> bool:
            return await store.outbox_size() == 0

        await eventually(is_empty, timeout=60)
        pid = node.whereis("pyglyn_query_out")
        assert pid is not None
        node.system.exit(pid, "shutdown")
        await eventually(lambda: node.whereis("pyglyn_query_out") is None)
    ids: dict[str, str] = {}
    bodies: list[str] = []
    consumer: Any = AIOKafkaConsumer(topic, bootstrap_servers=cluster.address, auto_offset_reset="earliest")
    await consumer.start()
    while len(ids) < 30:
        each = await consumer.getone()
        id, body = dict(each.headers)["message-id"].decode(), each.value.decode()
        assert ids.setdefault(id, body) == body
        bodies.append(body)
    await consumer.stop()
    assert list(dict.fromkeys(bodies)) == [str(number) for number in range(30)]
