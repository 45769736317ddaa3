"""What others can make a node write into its log."""

from __future__ import annotations

import logging

import pytest

from pyglyn.complaints import MOST, Complaints


def test_of_equal_complaints_the_first_is_said_and_one_a_minute() -> None:
    complaints = Complaints(every=60.0)
    assert complaints.take("no connection", 0.0) == "no connection"
    assert [complaints.take("no connection", at) for at in (1.0, 30.0, 59.9)] == [None] * 3
    assert complaints.take("disk full", 30.0) == "disk full"
    assert complaints.take("no connection", 60.0) == "no connection (3 times more since then)"
    assert complaints.take("no connection", 61.0) is None
    assert complaints.over()
    assert not complaints.over()
    assert complaints.take("no connection", 62.0) == "no connection"


def test_complaints_that_all_differ_take_neither_memory_nor_the_log() -> None:
    complaints = Complaints(every=60.0)
    said = [complaints.take(str(number), number / 1000) for number in range(10_000)]
    assert [line for line in said if line] == [str(number) for number in range(MOST)]
    assert len(complaints._last) <= MOST
    assert complaints.take("0", 59.0) is None
    later = complaints.take("other", 60.05)
    assert later == f"other; {10_000 - MOST + 1} further ones were not said"
    assert complaints.take("other", 130.0) == "other"


def test_a_complaint_is_written_once_with_what_stands_around_it(caplog: pytest.LogCaptureFixture) -> None:
    complaints, logger = Complaints(), logging.getLogger("pyglyn.trial")
    for end in (": 1", ": 2"):
        complaints.log(logger, "100 % full", start="store a: ", end=end)
    complaints.log(logger, "other", level=logging.INFO)
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [
        "store a: 100 % full: 1"
    ]
    assert caplog.records[0].funcName == "test_a_complaint_is_written_once_with_what_stands_around_it"
    assert caplog.records[0].exc_info is None


def test_a_complaint_about_an_error_has_its_traceback_behind_it(caplog: pytest.LogCaptureFixture) -> None:
    error = KeyError("k")
    Complaints().log(logging.getLogger("pyglyn.trial"), "failed", error=error)
    assert caplog.records[0].exc_info == (KeyError, error, None)
