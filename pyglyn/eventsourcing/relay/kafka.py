"""Messages to Kafka. Needs aiokafka (the extra ``kafka``). Layer: eventsourcing, on top.

The producer is idempotent and waits for all replicas in sync. Each message has its id in the header
``message-id``: one that is sent again after a crash of the relay is there twice, with one id.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.relay.delivery import Message
from pyglyn.eventsourcing.relay.nats import same_name

if TYPE_CHECKING:
    from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]


def one_key(message: Message) -> bytes:
    """Keep all messages of a topic in one partition, and so in order."""
    return message.topic.encode()


class KafkaPublisher:
    """Produces to topics of a Kafka cluster.

    Args:
        servers: ``host:port``.
        topic: the topic in Kafka of a topic here; its name by default.
        key: the key of a message: those of one key are in one partition. The topic by default.
        options: more for ``AIOKafkaProducer``, such as ``security_protocol``.

    Raises:
        EventStoreError: aiokafka is not installed.
    """

    def __init__(
        self,
        *servers: str,
        topic: Callable[[str], str] = same_name,
        key: Callable[[Message], bytes | None] = one_key,
        **options: Any,
    ) -> None:
        try:
            import aiokafka  # noqa: F401
        except ImportError as error:
            raise EventStoreError("a relay to Kafka needs aiokafka: pip install 'pyglyn[kafka]'") from error
        self._servers = list(servers) or ["localhost:9092"]
        self._topic = topic
        self._key = key
        self._options = options
        self._producer: AIOKafkaProducer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_producer": None}

    async def start(self) -> None:
        """Connect."""
        from aiokafka import AIOKafkaProducer

        options = {"enable_idempotence": True, "acks": "all", **self._options}
        producer = AIOKafkaProducer(bootstrap_servers=self._servers, **options)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer

    async def close(self) -> None:
        """Disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def publish(self, messages: Sequence[Message]) -> AsyncGenerator[Message, None]:
        """Hand all over, then wait for the confirmations in order."""
        assert self._producer is not None
        sent = [
            await self._producer.send(
                self._topic(message.topic),
                message.body.encode(),
                key=self._key(message),
                headers=[("message-id", message.id.encode())],
            )
            for message in messages
        ]
        for message, confirmed in zip(messages, sent, strict=True):
            await confirmed
            yield message
