"""Messages to NATS. Needs nats-py (the extra ``nats``). Layer: eventsourcing, on top.

With JetStream, which is the default, a message counts once its stream has confirmed it, and NATS leaves out
what it got before by the header ``Nats-Msg-Id`` (within two minutes, unless the stream says otherwise). A
stream for the subjects has to be there. Without, the server has taken it, and whoever listens then gets it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.relay.delivery import Message

if TYPE_CHECKING:
    from nats.aio.client import Client

MESSAGE_ID = "Nats-Msg-Id"


def same_name(topic: str) -> str:
    """Take the topic as it is."""
    return topic


class NatsPublisher:
    """Publishes to subjects of a NATS server or cluster.

    Args:
        servers: URLs.
        subject: the subject of a topic; its name by default.
        jetstream: have a stream confirm each message.
        timeout: seconds to wait for that.
        options: more for ``nats.connect``, such as ``user_credentials``.

    Raises:
        EventStoreError: nats-py is not installed.
    """

    def __init__(
        self,
        *servers: str,
        subject: Callable[[str], str] = same_name,
        jetstream: bool = True,
        timeout: float = 5.0,
        **options: Any,
    ) -> None:
        try:
            import nats.aio.client  # noqa: F401
        except ImportError as error:
            raise EventStoreError("a relay to NATS needs nats-py: pip install 'pyglyn[nats]'") from error
        self._servers = list(servers) or ["nats://localhost:4222"]
        self._subject = subject
        self._jetstream = jetstream
        self._timeout = timeout
        self._options = options
        self._client: Client | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    async def start(self) -> None:
        """Connect; afterwards the relay tries again, by its policy, and not this client."""
        from nats.aio.client import Client

        options = {"allow_reconnect": False, "connect_timeout": self._timeout, **self._options}
        client = Client()
        try:
            await client.connect(self._servers, **options)
        except BaseException:
            await client.close()  # it leaves the connection open by itself
            raise
        self._client = client

    async def close(self) -> None:
        """Disconnect."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def publish(self, messages: Sequence[Message]) -> AsyncGenerator[Message, None]:
        """Publish all, then wait for the confirmations in order."""
        assert self._client is not None
        if not self._jetstream:
            for message in messages:
                await self._client.publish(self._subject(message.topic), *_content(message))
            await self._client.flush(max(1, round(self._timeout)))
            for message in messages:
                yield message
            return
        stream = self._client.jetstream(timeout=self._timeout)
        sent: list[asyncio.Task[Any]] = []
        try:
            for message in messages:
                body, _, headers = _content(message)
                publishing = stream.publish(self._subject(message.topic), body, headers=headers)
                sent.append(asyncio.ensure_future(publishing))
            for message, confirmed in zip(messages, sent, strict=True):
                await confirmed
                yield message
        finally:
            for task in sent:
                task.cancel()
            await asyncio.gather(*sent, return_exceptions=True)


def _content(message: Message) -> tuple[bytes, str, dict[str, str]]:
    """Return body, reply subject and headers."""
    return message.body.encode(), "", {MESSAGE_ID: message.id}
