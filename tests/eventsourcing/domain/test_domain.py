"""The pure core: deciding, folding, snapshots, envelopes, given/when/then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies

from pyglyn import eventsourcing as es
from pyglyn.testing.bank import (
    BANK_ACCOUNT,
    AccountOpened,
    BankAccount,
    CustomerDepositedCash,
    DepositMoney,
    OpenAccount,
    WithDrawMoney,
    apply,
)
from pyglyn.testing.eventsourcing import scenario


def handled_by(handle: Any) -> es.Domain[Any, Any, Any]:
    return es.Domain(handle, apply, BankAccount())


async def waiting(_state: object, _command: object) -> list[object]:
    return []


def generating(_state: object, _command: object) -> Any:
    yield AccountOpened("a")


@pytest.mark.parametrize(
    ("handle", "complaint"),
    [
        (lambda s, c: None, r"handle\(OpenAccount\) returned None; return a list"),
        (lambda s, c: AccountOpened("a"), "returned a AccountOpened instead"),
        (lambda s, c: [AccountOpened("a"), None], "returned None among its events"),
        (lambda s, c: {"a": 1}, "returned a dict"),
        (lambda s, c: "events", "returned a str"),
        (waiting, "returned a coroutine"),
        (generating, "returned a generator"),
    ],
)
def test_a_handler_that_returns_no_list_of_events_is_told_so(handle: Any, complaint: str) -> None:
    with pytest.raises(es.InvalidHandlerResult, match=complaint):
        handled_by(handle).decide(BankAccount(), OpenAccount("a"))


def test_an_empty_state_that_is_a_class_is_refused() -> None:
    with pytest.raises(TypeError, match=r"before any event, BankAccount\(\) and not the class BankAccount"):
        es.Domain(BANK_ACCOUNT.handle, apply, BankAccount)  # type: ignore[arg-type]


def test_a_handler_may_return_no_events_or_a_tuple() -> None:
    assert handled_by(lambda s, c: []).decide(BankAccount(), OpenAccount("a")) == []
    assert handled_by(lambda s, c: (1, 2)).decide(BankAccount(), OpenAccount("a")) == [1, 2]


def test_what_a_handler_raises_comes_through_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        handled_by(lambda s, c: 1 / 0).decide(BankAccount(), OpenAccount("a"))
    with pytest.raises(es.DomainError) as caught:
        BANK_ACCOUNT.decide(BankAccount(), DepositMoney(1.0))
    assert caught.value.error == "refused: DepositMoney"


@pytest.mark.parametrize("frequency", [0, -1])
def test_a_frequency_has_to_be_positive(frequency: int) -> None:
    with pytest.raises(es.NonPositiveArgument):
        es.SnapshotConfig(frequency)
    with pytest.raises(ValueError, match="1 or more"):
        es.SnapshotConfig(frequency)


@pytest.mark.parametrize("frequency", [True, 1.0, "10", None])
def test_a_frequency_has_to_be_an_integer(frequency: Any) -> None:
    with pytest.raises(TypeError):
        es.SnapshotConfig(frequency)


@given(strategies.integers(1, 50), strategies.integers(0, 500), strategies.integers(0, 60))
def test_a_snapshot_is_due_when_a_multiple_lies_in_the_batch(frequency: int, before: int, count: int) -> None:
    in_batch = any(n % frequency == 0 for n in range(before + 1, before + count + 1))
    assert es.SnapshotConfig(frequency).due(before, before + count) is in_batch


def test_metadata_is_pairs_of_strings() -> None:
    from pyglyn.eventsourcing.domain.envelope import metadata_pairs

    assert metadata_pairs([("a", "b"), ("a", "c")]) == [("a", "b"), ("a", "c")]
    bad: Any
    for bad in ([("a", 1)], [("a",)], [("a", "b", "c")], [(None, "x")]):
        with pytest.raises(TypeError, match="pairs of two strings"):
            metadata_pairs(bad)


def test_given_when_then_tells_events_state_and_refusals() -> None:
    account = scenario(BANK_ACCOUNT)
    after = (
        account.given([AccountOpened("a")]).when(DepositMoney(10.0)).then([CustomerDepositedCash(10.0, 10.0)])
    )
    after.when(WithDrawMoney(4.0)).then_state(BankAccount(True, 6.0))
    after.when(WithDrawMoney(11.0)).then(es.DomainError("refused: WithDrawMoney"))
    account.given([AccountOpened("a")]).when(DepositMoney(0)).then([])


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a: a.when(OpenAccount("a")).then([]),
        lambda a: a.when(OpenAccount("a")).then([AccountOpened("b")]),
        lambda a: a.when(OpenAccount("a")).then(es.DomainError("refused: OpenAccount")),
        lambda a: a.when(OpenAccount("a")).then_state(BankAccount()),
        lambda a: a.when(DepositMoney(1.0)).then([]),
        lambda a: a.when(DepositMoney(1.0)).then(es.DomainError("another")),
        lambda a: a.when(DepositMoney(1.0)).then_state(BankAccount()),
    ],
)
def test_given_when_then_fails_on_another_outcome(wrong: Any) -> None:
    with pytest.raises(AssertionError):
        wrong(scenario(BANK_ACCOUNT))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (
            lambda a: a.given(AccountOpened("a")),
            r"given takes a list of events, got AccountOpened.*written \[",
        ),
        (lambda a: a.given("events"), "given takes a list of events, got 'events'"),
        (lambda a: a.given(AccountOpened), "given takes a list of events, got <class"),
        (lambda a: a.given(None), "given takes a list of events, got None$"),
        (
            lambda a: a.when(OpenAccount("a")).then(AccountOpened("a")),
            "a list of events or a DomainError, got",
        ),
        (lambda a: a.when(OpenAccount("a")).then(es.DomainError), r"with its value: DomainError\(\.\.\.\)"),
        (lambda a: a.when(OpenAccount("a")).then(None), "a list of events or a DomainError, got None$"),
        (lambda a: a.when(OpenAccount("a")).then(ValueError("x")), "a list of events or a DomainError, got"),
    ],
)
def test_given_when_then_says_what_it_takes(wrong: Any, complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        wrong(scenario(BANK_ACCOUNT))
