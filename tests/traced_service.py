"""A service whose module turns traces on where ``SPANS`` names a file, as an application's does."""

from __future__ import annotations

import json
import os
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from pyglyn import tracing
from pyglyn.testing import bank
from pyglyn.testing.bank import BankAccount, BankAccountCommand, BankAccountEvent

SPANS = "SPANS"


def _line(span: ReadableSpan) -> str:
    told: dict[str, Any] = json.loads(span.to_json())
    return json.dumps({**told, "os_pid": os.getpid()}) + "\n"


def enable() -> None:
    """Write spans into the file, each as a line with the OS process that made it."""
    provider = TracerProvider()
    out = open(os.environ[SPANS], "a")  # noqa: SIM115
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=_line)))
    tracing.enable(provider)


def handle(state: BankAccount, command: BankAccountCommand) -> list[BankAccountEvent]:
    """As the bank of `pyglyn.testing` does."""
    return bank.handle(state, command)


if SPANS in os.environ:
    enable()
