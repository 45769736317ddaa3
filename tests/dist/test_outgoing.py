"""The queue of a connection: what is counted, and in which pieces it goes out."""

from __future__ import annotations

from pyglyn.dist.outgoing import OutgoingQueue


def test_what_is_queued_is_counted_until_it_is_taken() -> None:
    queue = OutgoingQueue(10)
    queue.add(b"abc", None, None)
    queue.add(b"de", None, None)
    assert queue.size == 5
    assert queue.take(100) == [b"abc", b"de"]
    assert queue.size == 0
    assert queue.take(100) == []


def test_a_large_packet_without_fragments_goes_out_a_share_at_a_time_and_counts_beside_others() -> None:
    queue = OutgoingQueue(4)
    queue.add(b"before", None, None)
    queue.add_in_parts([b"head", bytes(range(10))])
    queue.add(b"after", None, None)
    assert queue.size == 25
    taken: list[bytes] = []
    while pieces := queue.take(4):
        before = len(b"".join(taken))
        taken += map(bytes, pieces)
        assert len(b"".join(taken)) - before <= 8
        assert queue.size == 25 - len(b"".join(taken))
    assert b"".join(taken) == b"beforehead" + bytes(range(10)) + b"after"


def test_a_cleared_queue_is_empty() -> None:
    queue = OutgoingQueue(4)
    queue.add_in_parts([bytes(100)])
    queue.clear()
    assert (queue.size, queue.take(100)) == (0, [])
