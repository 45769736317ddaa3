"""A wrapped store is the store inside, for every call of the interface; and one event is encoded once."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyglyn import eventsourcing as es
from pyglyn.eventsourcing import glyn
from pyglyn.eventsourcing.domain import wire
from pyglyn.eventsourcing.queries.ahead import ReadAhead
from pyglyn.eventsourcing.stores.sqlite_database import SqliteDatabase
from pyglyn.eventsourcing.stores.store import Page
from pyglyn.eventsourcing.stores.wrapped import WrappedStore, WrappedTransaction
from pyglyn.node import Node
from pyglyn.testing.bank import AccountOpened, BankAccount, BankAccountEvent, OpenAccount, apply, handle
from tests.eventsourcing.handles import bank_at
from tests.node.conftest import unique_name

Calls = list[tuple[str, tuple[Any, ...], dict[str, Any]]]


class Recorder:
    """Answers to every name of the interface, and remembers what was called."""

    aggregate_type, has_sql, has_side_tables = "T", True, True

    def __init__(self, interface: type) -> None:
        self.calls: Calls = []
        self._interface = interface

    def __getattr__(self, name: str) -> Callable[..., Any]:
        function = getattr(self._interface, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self.calls.append((name, arguments, options))
            if inspect.iscoroutinefunction(function):
                return _answer(name)
            return _batches() if inspect.isasyncgenfunction(function) else None

        return call


PAGE: Page[Any] = Page(0, 0, list)


async def _answer(name: str) -> object:
    return PAGE if name == "read_page" else "the answer"


async def _batches() -> AsyncIterator[object]:
    yield "the answer"


def methods(interface: type) -> list[str]:
    """The public methods of an interface; a transaction is the way to another one."""
    return [
        name
        for name in dir(interface)
        if not name.startswith("_")
        and name not in {"transaction", "reopen"}
        and callable(getattr(interface, name))
    ]


def arguments_for(function: Callable[..., Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A value of its own for each parameter, so that none can be left out or swapped."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            named[parameter.name] = f"value of {parameter.name}"
        else:
            positional.append(f"value of {parameter.name}")
    return tuple(positional), named


def given(calls: Calls, interface: type) -> list[tuple[str, dict[str, Any]]]:
    bound = []
    for name, arguments, options in calls:
        signature = inspect.signature(getattr(interface, name))
        bound.append((name, dict(signature.bind(None, *arguments, **options).arguments)))
    return bound


INTERFACES = [(es.EventStore, WrappedStore), (es.Transaction, WrappedTransaction)]


@pytest.mark.parametrize(
    ("interface", "wrapped", "name"),
    [(interface, wrapped, name) for interface, wrapped in INTERFACES for name in methods(interface)],
)
async def test_every_method_is_passed_on_with_all_its_arguments(
    interface: type, wrapped: Any, name: str
) -> None:
    inside = Recorder(interface)
    function = getattr(interface, name)
    arguments, options = arguments_for(function)
    answer = getattr(wrapped(inside), name)(*arguments, **options)
    if isinstance(answer, Awaitable):
        assert await answer in ("the answer", None, PAGE)
    elif isinstance(answer, AsyncIterator):
        assert [each async for each in answer] == ["the answer"]
    assert given(inside.calls, interface) == given([(name, arguments, options)], interface)


async def test_who_reads_on_asks_the_wrapper_for_each_page(tmp_path: Path) -> None:
    """Which may change what it gets of the store inside."""
    asked: list[int] = []

    class Asked(WrappedStore[Any, Any]):
        async def read_page(self, after: int = 0, *, limit: int = 500) -> Page[Any]:
            asked.append(after)
            return await super().read_page(after, limit=limit)

    async with es.open_store(
        f"sqlite:{tmp_path}/a.db", events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    ) as store:
        await store.append("a", [AccountOpened("a")] * 50, expected=0)
        ahead = ReadAhead(Asked(store))
        for after in (0, 10, 20, 30, 40):
            assert len(await ahead.read(after, limit=10)) == 10
        await ahead.forget()
    assert asked[:4] == [0, 10, 20, 30]


def test_nothing_of_the_interface_is_left_to_its_defaults() -> None:
    for interface, wrapped in INTERFACES:
        assert [
            name for name in methods(interface) if getattr(wrapped, name) is getattr(interface, name)
        ] == []
        assert set(methods(wrapped)) - set(methods(interface)) <= {"wrap", "after_commit"}


async def test_a_transaction_of_a_wrapped_store_is_wrapped_and_committed_by_the_store_inside() -> None:
    ends: list[object] = []

    class Inside(Recorder):
        def transaction(self, **options: Any) -> AbstractAsyncContextManager[Any]:
            ends.append(options)
            return self._transaction()

        @asynccontextmanager
        async def _transaction(self) -> AsyncIterator[Any]:
            yield Recorder(es.Transaction)
            ends.append("committed")

    class Telling(WrappedStore[Any, Any]):
        async def after_commit(self, transaction: WrappedTransaction[Any, Any]) -> None:
            ends.append(transaction)

    inside: Any = Inside(es.EventStore)
    async with Telling(inside).transaction(isolation="read committed") as tx:
        assert isinstance(tx, WrappedTransaction)
        assert ends == [{"isolation": "read committed"}]
    assert ends[1:] == ["committed", tx]
    with pytest.raises(KeyError):
        async with Telling(inside).transaction():
            raise KeyError("on purpose")
    assert ends[3:] == [{"isolation": None}], "what is not committed is not told"


READS: list[tuple[str, tuple[Any, ...]]] = [
    ("checkpoint", ("q",)),
    ("checkpoints", ()),
    ("load_checkpoint", ("q",)),
    ("parked", ()),
    ("count_parked", ("q",)),
    ("parked_aggregates", ("q",)),
    ("last_position", ()),
    ("read", ()),
]


@pytest.mark.parametrize(("name", "arguments"), READS, ids=[name for name, _ in READS])
async def test_reading_through_a_glyn_store_takes_no_write_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, arguments: tuple[Any, ...]
) -> None:
    inner: es.EventStore[Any, Any] = es.open_store(f"sqlite:{tmp_path}/a.db", aggregate_type="T")
    config = glyn.GlynConfig(pubsub_scope="s", pubsub_group="g")
    async with glyn.glyn_store(config, inner) as store:

        def refused(_self: SqliteDatabase) -> Any:
            raise AssertionError("a reader takes the write lock")

        monkeypatch.setattr(SqliteDatabase, "transaction", refused)
        await getattr(store, name)(*arguments)


async def test_an_event_is_encoded_once_from_the_command_to_the_broadcast(
    epmd: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[object] = []
    real = wire.encoding

    def counting(type_: object) -> Callable[[Any], Any]:
        encode = real(type_)

        def counted(value: Any) -> Any:
            encoded.append(value)
            return encode(value)

        return counted

    monkeypatch.setattr(wire, "encoding", counting)
    config = glyn.GlynConfig(pubsub_scope="s", pubsub_group="g")
    async with Node(unique_name(), cookie="eventsourcing") as node:
        inner: es.EventStore[Any, Any] = es.MemoryStore("BankAccount")
        store = await glyn.start(node, config, inner, [], BankAccountEvent)
        made = es.service("bank", store, handle=handle, apply=apply, empty_state=BankAccount())
        await es.start(node, made)
        encoded.clear()
        await bank_at(node).execute("a1", OpenAccount("a1"))
        assert encoded.count(AccountOpened("a1")) == 1
        encoded.clear()
        await store.append("a2", [AccountOpened("a2")], expected=0)
        async with store.transaction() as tx:
            await tx.append("a3", [AccountOpened("a3")], expected=0)
        assert encoded == [AccountOpened("a2"), AccountOpened("a3")]
