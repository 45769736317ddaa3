"""Spans: what hangs below what, what is not in them, and that nothing is called while they are off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pyglyn import Atom, GenServer, Node, supervision, tracing
from pyglyn import eventsourcing as es
from pyglyn.errors import CallFailed, DomainError
from pyglyn.eventsourcing.domain.causation import value_of
from pyglyn.supervision import Supervisor
from pyglyn.testing import eventually
from pyglyn.testing.bank import BankAccount, BankAccountEvent, DepositMoney, OpenAccount, apply, handle
from tests import traced_service
from tests.eventsourcing.handles import bank_at
from tests.node.conftest import unique_name

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """On meanwhile, with a provider of the test's own."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing.enable(provider)
    try:
        yield exporter
    finally:
        tracing.disable()
        provider.shutdown()


class Echo(GenServer):
    async def handle_call(self, request: Any, caller: Any) -> Any:
        if request is Atom("crash"):
            raise ValueError("secret text")
        return request


async def served(node: Node, tmp_path: Any, queries: Any = ()) -> None:
    store = es.open_store(
        f"sqlite:{tmp_path}/bank.db", events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    )
    spec = es.service(
        "bank", store, handle=handle, apply=apply, empty_state=BankAccount(), queries=queries
    )  # fmt: skip
    await es.start(node, spec)


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    same = child.context.trace_id == parent.context.trace_id  # type: ignore[union-attr]
    return same and child.parent is not None and child.parent.span_id == parent.context.span_id  # type: ignore[union-attr]


async def test_a_trace_goes_from_a_command_to_its_event_to_a_query_and_on(epmd, tmp_path, spans) -> None:
    async with Node(unique_name(), cookie="c") as node:

        async def gift(id: str, envelopes: list[Any]) -> None:
            if id == "a":
                await bank_at(node).execute("b", OpenAccount("b"))

        await served(node, tmp_path, [("gift", gift)])
        [opened] = await bank_at(node).execute("a", OpenAccount("a"), metadata=[("traceparent", PARENT)])
        await eventually(lambda: len(named(spans, "query")) == 2 and len(named(spans, "command bank")) == 2)
    first, second = named(spans, "command bank")
    queries = named(spans, "query")
    appends = named(spans, "append bank")
    [caused] = [query for query in queries if below(query, first)]
    assert f"{first.context.trace_id:032x}" == PARENT.split("-")[1]  # type: ignore[union-attr]
    assert f"{first.parent.span_id:016x}" == PARENT.split("-")[2]  # type: ignore[union-attr]
    assert below(appends[0], first)
    assert below(appends[1], second)
    assert second.context.trace_id == first.context.trace_id  # type: ignore[union-attr]
    calls = [span for span in spans.get_finished_spans() if below(second, span)]
    assert below(second, caused) or any(below(call, caused) for call in calls)
    assert [query for query in queries if below(query, second)]
    told = value_of(opened.metadata, "traceparent")
    assert told is not None
    assert told.split("-")[1:3] == [f"{first.context.trace_id:032x}", f"{first.context.span_id:016x}"]  # type: ignore[union-attr]
    assert [key for key, _ in opened.metadata].count("traceparent") == 1
    assert (first.kind, caused.kind) == (SpanKind.SERVER, SpanKind.CONSUMER)
    assert dict(first.attributes or {}) == {"pyglyn.service": "bank"}


@pytest.mark.parametrize("how", ["fork", "spawn"])
async def test_a_command_in_another_os_process_hangs_below_the_one_who_sent_it(
    epmd, tmp_path, monkeypatch, how: Any
) -> None:
    """A forked child has it from its supervisor; a fresh interpreter turns it on where the app's module does."""
    file = tmp_path / "spans"
    monkeypatch.setenv(traced_service.SPANS, str(file))
    store = es.open_store(
        f"sqlite:{tmp_path}/bank.db", events=BankAccountEvent, state=BankAccount, aggregate_type="BankAccount"
    )
    spec = es.supervised(
        "bank", store, handle=traced_service.handle, apply=apply, empty_state=BankAccount()
    )  # fmt: skip
    try:
        traced_service.enable()
        async with Node(unique_name(), cookie="c") as node:
            await supervision.start(node, Supervisor("one_for_one", start=how).add(spec))
            with tracing.span("request"):
                [opened] = await bank_at(node).execute("a", OpenAccount("a"))
            spans = {told["name"]: told for told in map(json.loads, file.read_text().splitlines())}
    finally:
        tracing.disable()
    request, command, append = (spans[name] for name in ("request", "command bank", "append bank"))
    callers = {request["context"]["span_id"]} | {
        told["context"]["span_id"]
        for name, told in spans.items()
        if name.startswith("call ") and told["parent_id"] == request["context"]["span_id"]
    }
    assert command["parent_id"] in callers
    assert append["parent_id"] == command["context"]["span_id"]
    assert {told["context"]["trace_id"] for told in spans.values()} == {request["context"]["trace_id"]}
    assert (request["os_pid"], command["os_pid"] != os.getpid()) == (os.getpid(), True)
    assert f"{int(command['context']['span_id'], 16):016x}" in (
        value_of(opened.metadata, "traceparent") or ""
    )


async def test_a_refused_command_is_no_failure_and_its_error_is_a_type(epmd, tmp_path, spans) -> None:
    async with Node(unique_name(), cookie="c") as node:
        await served(node, tmp_path)
        with pytest.raises(DomainError):
            await bank_at(node).execute("a", DepositMoney(-1.0))
    [span] = named(spans, "command bank")
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["error.type"] == "DomainError"
    assert not span.events


async def test_a_call_is_a_span_by_the_name_of_the_server_and_its_failure_has_no_text(epmd, spans) -> None:
    async with Node(unique_name(), cookie="c") as node:
        pid = await node.start(Echo, name="echo")
        assert await node.call("echo", 1) == 1
        assert await node.call(("echo", node.name), 1) == 1
        assert pid is not None
        with pytest.raises(CallFailed):
            await node.call(pid, Atom("crash"))
    assert [span.name for span in spans.get_finished_spans()] == ["call echo", "call echo", "call process"]
    failed = spans.get_finished_spans()[-1]
    assert (failed.status.status_code, failed.kind) == (StatusCode.ERROR, SpanKind.CLIENT)
    assert "secret" not in failed.to_json()


@pytest.mark.parametrize("pairs", [[], [("traceparent", "nonsense")], [("traceparent", "")], [("a", "b")]])
def test_pairs_that_say_nothing_begin_a_trace(spans, pairs) -> None:
    with tracing.span("x", cause=pairs):
        carried = tracing.carried([*pairs, ("k", "v")])
    [span] = named(spans, "x")
    assert span.parent is None
    told = value_of(carried, "traceparent") or ""
    assert told.split("-")[1:3] == [f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"]  # type: ignore[union-attr]
    assert ("k", "v") in carried
    assert len([pair for pair in carried if pair[0] == "traceparent"]) == 1


def test_outside_of_a_span_pairs_stay_as_they_are(spans) -> None:
    assert tracing.carried([("traceparent", PARENT)]) == [("traceparent", PARENT)]


async def test_off_nothing_of_it_is_called(epmd, tmp_path) -> None:
    """Counted: not one function of ours for it, or of OpenTelemetry's, whatever a node does."""
    called: list[str] = []

    def profile(frame: Any, event: str, argument: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and (name == tracing.__file__ or "opentelemetry" in name):
            called.append(frame.f_code.co_name)

    assert tracing.tracer is None
    seen = []
    async with Node(unique_name(), cookie="c") as node:

        async def look(id: str, envelopes: list[Any]) -> None:
            seen.append(id)

        await served(node, tmp_path, [("look", look)])
        await node.start(Echo, name="echo")
        before = sys.getprofile()
        sys.setprofile(profile)
        try:
            await node.call("echo", 1)
            await bank_at(node).execute("a", OpenAccount("a"))
            await eventually(lambda: seen == ["a"])
        finally:
            sys.setprofile(before)
    assert called == []


def test_off_nothing_of_opentelemetry_is_imported() -> None:
    code = (
        "import sys, pyglyn.node, pyglyn.eventsourcing.glyn, pyglyn.eventsourcing, pyglyn.tracing;"
        "from pyglyn import Node; pyglyn.eventsourcing.service;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
