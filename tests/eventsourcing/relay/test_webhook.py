"""Messages posted to a real HTTP server, signed as Standard Webhooks says."""

from __future__ import annotations

import base64
import hashlib
import hmac
import pickle

import httpx
import pytest

from pyglyn.eventsourcing.relay.delivery import Message
from pyglyn.eventsourcing.relay.webhook import NotAccepted, WebhookPublisher, signature


def message(body: str, id: str = "out/1") -> Message:
    return Message(id=id, topic="orders", body=body, created_at=0.0, attempts=0)


def test_a_signature_is_the_one_of_the_specification() -> None:
    """The example of standardwebhooks.com's own libraries."""
    secret = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_each_is_a_request_with_an_id_a_time_and_a_signature(hooks) -> None:
    secret = b"so secret"
    to = WebhookPublisher(f"{hooks.url}/orders", secret=secret, headers={"x-more": "yes"})
    to = pickle.loads(pickle.dumps(to))
    await to.start()
    bodies = ['{"n": 1}', "ünicode"]
    sent = [message(body, f"out/{number}") for number, body in enumerate(bodies)]
    assert [each async for each in to.publish(sent)] == sent
    await to.close()
    await to.close()
    for (path, headers, body), one in zip(hooks.got, sent, strict=True):
        assert (path, body.decode(), headers["webhook-id"]) == ("/orders", one.body, one.id)
        assert (headers["content-type"], headers["x-more"]) == ("application/json", "yes")
        signed = f"{one.id}.{headers['webhook-timestamp']}.{one.body}".encode()
        digest = base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_an_answer_that_is_none_of_success_ends_the_batch_there(hooks, status) -> None:
    hooks.answers = [200, status]
    to = WebhookPublisher(f"{hooks.url}/orders")
    await to.start()
    publishing = to.publish([message("1"), message("2"), message("3")])
    assert await anext(publishing) == message("1")
    with pytest.raises(NotAccepted, match=str(status)):
        await anext(publishing)
    await to.close()
    assert hooks.bodies == [b"1"]


async def test_without_a_server_it_fails(hooks) -> None:
    to = WebhookPublisher("http://127.0.0.1:1/")
    await to.start()
    with pytest.raises(httpx.HTTPError):
        _ = [each async for each in to.publish([message("1")])]
    await to.close()


def test_a_secret_that_is_no_base64_is_refused_and_none_is_shown() -> None:
    with pytest.raises(ValueError, match=r"base64|padding"):
        WebhookPublisher("http://localhost", secret="whsec_no!")
    assert "so secret" not in repr(WebhookPublisher("http://localhost", secret=b"so secret"))
