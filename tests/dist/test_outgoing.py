"""The queue of a connection: what is counted, and in which pieces it goes out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyglyn.dist.control import GroupLeader, Send
from pyglyn.dist.framing import Buffer, FragmentedMessage
from pyglyn.dist.outgoing import OutgoingQueue
from pyglyn.etf import Pid

SENDERS = [Pid("a@host", number, 0, 7) for number in (1, 2, 3)]
TO = Pid("b@host", 9, 0, 7)


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


class OneByOne(OutgoingQueue):
    """The definition: after each fragment it is looked whose turn is next."""

    def _stream_turn(self, pieces: list[Buffer], room: int) -> int:
        return super()._stream_turn(pieces, 0)


MESSAGES = st.lists(
    st.tuples(st.sampled_from([*SENDERS, None]), st.lists(st.integers(0, 500), max_size=3)), max_size=12
)


@given(MESSAGES, st.integers(1, 200), st.integers(1, 2000))
def test_fragments_cut_in_one_go_are_those_cut_one_by_one(
    messages: list[tuple[Pid | None, list[int]]], share: int, limit: int
) -> None:
    """Of whatever messages: large ones, small ones, and those of which nobody knows who sent them."""
    plain, quick = OneByOne(share), OutgoingQueue(share)
    for queue in (plain, quick):
        for number, (sender, sizes) in enumerate(messages):
            parts: list[Buffer] = [bytes((number,)) * size for size in sizes]
            if sender is None:
                queue.add(b"".join(parts) + b"-", GroupLeader(SENDERS[0], TO), None)
            elif sum(sizes) < share:
                queue.add(b"".join(parts) + b"+", Send(sender, TO), None)
            else:
                message = FragmentedMessage(b"control", parts, number, share)
                queue.add_fragmented(message, Send(sender, TO), None)
    taken: list[list[bytes]] = []
    for queue in (plain, quick):
        taken.append([])
        while queue.size:
            taken[-1].append(b"".join(queue.take(limit)))
        assert queue.take(limit) == []
    assert b"".join(taken[0]) == b"".join(taken[1])


def test_a_large_message_has_its_turn_also_behind_more_than_was_asked_for() -> None:
    queue = OutgoingQueue(100)
    queue.add_fragmented(FragmentedMessage(b"control", [bytes(1000)], 1, 100), Send(SENDERS[0], TO), None)
    left = queue.size
    while queue.size:
        queue.add(bytes(500), Send(SENDERS[1], TO), None)
        queue.take(300)
        assert queue.size < left
        left = queue.size


@given(st.integers(1, 300), st.integers(1, 3000), st.integers(1, 5000))
def test_of_a_large_message_about_as_much_is_taken_as_is_asked_for(share: int, limit: int, size: int) -> None:
    queue, sizes = OutgoingQueue(share), []
    queue.add_fragmented(FragmentedMessage(b"control", [bytes(size)], 1, share), Send(SENDERS[0], TO), None)
    while queue.size:
        pieces = queue.take(limit)
        sizes.append(sum(map(len, pieces)) - 22 * sum(type(piece) is bytes for piece in pieces))
    most = limit + max(share, 7) + share // 4 + 8
    assert all(limit <= taken <= most for taken in sizes[:-1])
    assert sizes[-1] <= most
