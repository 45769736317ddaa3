"""Messages to an HTTP server, as Standard Webhooks 1.0.0. Needs httpx (the extra ``webhooks``).

Each is a POST with the headers ``webhook-id``, ``webhook-timestamp`` (seconds since 1970) and, with a secret,
``webhook-signature``: ``v1,`` and the base64 of HMAC-SHA256 over ``id.timestamp.body``. It counts once the
answer has a status of 200 to 299.

Source: standardwebhooks.com, version 1.0.0. Not supported: signatures by Ed25519 (``v1a``).
Layer: eventsourcing, on top.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pyglyn.errors import EventStoreError
from pyglyn.eventsourcing.relay.delivery import Message

if TYPE_CHECKING:
    import httpx

SECRET_PREFIX = "whsec_"

LONGEST_ANSWER = 1 << 16
"""Bytes that are read of an answer."""


class NotAccepted(Exception):
    """The server answered with a status that is none of success."""


def signature(secret: bytes, id: str, timestamp: int, body: bytes) -> str:
    """Sign a message."""
    signed = hmac.new(secret, f"{id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


class WebhookPublisher:
    """Posts messages to a URL.

    Args:
        url: where to, or a function that returns it for a topic.
        secret: signs messages: ``whsec_`` and base64, or bytes; None for no signature.
        headers: more of them, such as ``Authorization``.
        content_type: of the bodies.
        timeout: seconds for one request.
        options: more for ``httpx.AsyncClient``, such as ``verify``.

    Raises:
        EventStoreError: httpx is not installed.
        ValueError: the secret is no base64.
    """

    def __init__(
        self,
        url: str | Callable[[str], str],
        *,
        secret: str | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        content_type: str = "application/json",
        timeout: float = 10.0,
        **options: Any,
    ) -> None:
        try:
            import httpx  # noqa: F401
        except ImportError as error:
            raise EventStoreError("webhooks need httpx: pip install 'pyglyn[webhooks]'") from error
        self._url = url
        self._headers = {"content-type": content_type, **(headers or {})}
        self._timeout = timeout
        self._options = options
        self._client: httpx.AsyncClient | None = None
        if isinstance(secret, str):
            secret = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
        self._secret = secret

    def __repr__(self) -> str:
        return f"<WebhookPublisher {shown(self._url) if isinstance(self._url, str) else self._url!r}>"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    async def start(self) -> None:
        """Make a client; it connects at the first message."""
        import httpx

        self._client = httpx.AsyncClient(timeout=self._timeout, **self._options)

    async def close(self) -> None:
        """Close its connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def publish(self, messages: Sequence[Message]) -> AsyncGenerator[Message, None]:
        """Post one after the other.

        Raises:
            NotAccepted: the status of an answer is none of success.
            httpx.HTTPError: there is no answer.
        """
        assert self._client is not None
        for message in messages:
            url = self._url if isinstance(self._url, str) else self._url(message.topic)
            body, now = message.body.encode(), int(time.time())
            headers = {**self._headers, "webhook-id": message.id, "webhook-timestamp": str(now)}
            if self._secret is not None:
                headers["webhook-signature"] = signature(self._secret, message.id, now, body)
            async with self._client.stream("POST", url, content=body, headers=headers) as answer:
                said = await _beginning(answer)
            if not answer.is_success:
                text = said[:200].decode(errors="backslashreplace")
                raise NotAccepted(f"{shown(url)} answered {answer.status_code}: {text}")
            yield message


async def _beginning(answer: httpx.Response) -> bytes:
    """Read what is said, but not without end; what is not read costs the connection."""
    said = b""
    async for part in answer.aiter_raw():
        said += part
        if len(said) > LONGEST_ANSWER:
            break
    return said


def shown(url: str) -> str:
    """Write a URL without what may be secret in it."""
    import httpx

    return str(httpx.URL(url).copy_with(userinfo=b"", query=None))
