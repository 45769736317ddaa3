"""Ticks: when to show that we live, and when the peer is as good as dead."""

from __future__ import annotations

from pyglyn.dist.ticks import TickAction, Ticker

NOTHING, TICK, GIVE_UP = TickAction.NOTHING, TickAction.TICK, TickAction.GIVE_UP


def end(ticker: Ticker, *, reading: bool = True, queued: bool = False) -> TickAction:
    """End the interval where it ends; a tick is written at once."""
    action = ticker.end_interval(ticker.deadline, reading=reading, queued=queued)
    ticker.sent += action is TICK
    return action


def test_an_interval_is_net_ticktime_by_intensity_and_counts_from_where_the_last_was_ended() -> None:
    ticker = Ticker(100.0, 60.0, 4)
    assert ticker.deadline == 115.0
    ticker.end_interval(200.0, reading=True, queued=False)
    assert ticker.deadline == 215.0


def test_a_peer_is_given_up_after_so_many_whole_silent_intervals() -> None:
    ticker = Ticker(0.0, 8.0, 4)
    assert [end(ticker) for _ in range(4)] == [TICK, TICK, TICK, GIVE_UP]


def test_any_byte_ends_the_silence() -> None:
    ticker = Ticker(0.0, 8.0, 3)
    assert [end(ticker) for _ in range(2)] == [TICK, TICK]
    ticker.received += 1
    assert [end(ticker) for _ in range(4)] == [TICK, TICK, TICK, GIVE_UP]


def test_silence_proves_nothing_where_nobody_reads() -> None:
    ticker = Ticker(0.0, 8.0, 2)
    assert [end(ticker, reading=False) for _ in range(5)] == [TICK] * 5
    assert [end(ticker) for _ in range(2)] == [TICK, GIVE_UP]


def test_who_has_read_and_written_needs_no_tick() -> None:
    ticker = Ticker(0.0, 8.0, 4)
    for received, sent, action in ((1, 1, NOTHING), (1, 0, TICK), (0, 1, TICK), (1, 1, NOTHING)):
        ticker.received += received
        ticker.sent += sent
        assert end(ticker) is action


def test_nor_who_has_something_queued_which_will_show_it() -> None:
    assert end(Ticker(0.0, 8.0, 4), queued=True) is NOTHING


def test_the_tick_itself_is_no_reason_to_leave_the_next_one_out() -> None:
    ticker = Ticker(0.0, 8.0, 4)
    ticker.sent = 7
    for _ in range(5):
        ticker.received += 1
        end(ticker)
    ticker.received += 1
    assert end(ticker) is TICK
    ticker.received += 1
    ticker.sent += 1
    assert end(ticker) is NOTHING
