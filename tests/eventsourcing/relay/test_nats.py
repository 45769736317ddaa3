"""Messages to a real NATS server, with and without JetStream."""

from __future__ import annotations

import pickle
from typing import Any

import nats
import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing.relay import NatsPublisher, Relay
from pyglyn.eventsourcing.relay.delivery import Message
from pyglyn.eventsourcing.relay.nats import MESSAGE_ID
from pyglyn.testing import eventually


def messages(*bodies: str, first: int = 0) -> list[Message]:
    return [
        Message(id=f"out/{number}", topic="orders", body=body, created_at=0.0, attempts=0)
        for number, body in enumerate(bodies, first)
    ]


async def test_a_stream_confirms_each_message_and_takes_none_twice(nats_server):
    await nats_server.ready()
    client: Any = await nats.connect(nats_server.url)
    stream = client.jetstream()
    await stream.add_stream(name="SHOP", subjects=["shop.>"])
    to = pickle.loads(pickle.dumps(NatsPublisher(nats_server.url, subject=_in_shop)))
    await to.start()
    sent = messages(*(str(number) for number in range(200)))
    assert [each async for each in to.publish(sent)] == sent
    assert [each async for each in to.publish(sent[150:])] == sent[150:]  # again, after a crash
    await to.close()
    await to.close()
    assert (await stream.stream_info("SHOP")).state.messages == 200
    got = await stream.subscribe("shop.orders", ordered_consumer=True)
    for one in sent:
        found = await got.next_msg(timeout=10)
        assert (found.data.decode(), found.headers[MESSAGE_ID]) == (one.body, one.id)
    await client.close()


def _in_shop(topic: str) -> str:
    return f"shop.{topic}"


async def test_without_a_stream_it_fails_and_without_jetstream_listeners_get_it(nats_server):
    await nats_server.ready()
    to = NatsPublisher(nats_server.url, timeout=2.0)
    await to.start()
    with pytest.raises(nats.errors.Error):
        _ = [each async for each in to.publish(messages("1"))]
    await to.close()
    client: Any = await nats.connect(nats_server.url)
    listening = await client.subscribe("orders")
    await client.flush()
    to = NatsPublisher(nats_server.url, jetstream=False)
    await to.start()
    assert len([each async for each in to.publish(messages("1", "2"))]) == 2
    assert [(await listening.next_msg(timeout=10)).data for _ in range(2)] == [b"1", b"2"]
    await to.close()
    await client.close()


async def test_a_relay_lives_through_a_restart_of_the_server_and_loses_nothing(node, store, nats_server):
    await nats_server.ready()
    client: Any = await nats.connect(nats_server.url)
    await client.jetstream().add_stream(name="SHOP", subjects=["orders"])
    await client.close()
    policy = es.FailurePolicy(retries=None, first=0.01, longest=0.1)
    to = NatsPublisher(nats_server.url, timeout=2.0)
    await Relay("out", store=store, topics=["orders"], to=to, policy=policy, batch=10).start(node)
    for number in range(50):
        await store.append(
            "a", [{"n": number}], expected=number, outbox=[es.OutboxMessage("orders", str(number))]
        )
        if number == 20:
            nats_server.stop()
        if number == 40:
            nats_server.start()

    async def is_empty() -> bool:
        return await store.outbox_size() == 0

    await eventually(is_empty, timeout=60)
    client = await nats.connect(nats_server.url)
    got = await client.jetstream().subscribe("orders", ordered_consumer=True)
    bodies = [(await got.next_msg(timeout=10)).data.decode() for _ in range(50)]
    assert bodies == [str(number) for number in range(50)]
    await client.close()
