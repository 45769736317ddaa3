"""Which tests need nothing but this interpreter: no BEAM, no database server, no other OS process, no connection.

They carry the marker ``alone``, so ``pytest -m alone`` runs them, in about a minute and with fewer examples than a whole run. What they are is said by
the table here and by their fixtures; that they are is held while they run, by a hook that refuses the rest.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

ALONE = {
    "dist/",
    "etf/",
    "gleam/",
    "groups/test_discovery.py",
    "groups/test_effects.py",
    "groups/test_membership.py",
    "groups/test_overview.py",
    "groups/test_pg_state.py",
    "groups/test_syn_pg_state.py",
    "groups/test_syn_registry_state.py",
    "groups/test_syn_state.py",
    "groups/test_transcripts.py",
    "groups/test_views_converge.py",
    "http/test_merged.py",
    "node/test_calls.py",
    "node/test_frames.py",
    "node/test_gen_server.py",
    "node/test_hot.py",
    "node/test_hub.py",
    "node/test_inlet.py",
    "node/test_io_server.py",
    "node/test_link.py",
    "node/test_onward.py",
    "node/test_readiness.py",
    "node/test_reasons.py",
    "node/test_rpc.py",
    "node/test_runtime.py",
    "node/test_services.py",
    "node/test_signals.py",
    "node/test_threads.py",
    "node/test_worker_questions.py",
    "supervision/test_declaration.py",
    "supervision/test_erlang_spec.py",
    "supervision/test_policy.py",
    "supervision/test_policy_recorded.py",
    "supervision/test_requests.py",
    "supervision/test_words.py",
    "supervision/test_wording.py",
    "eventsourcing/domain/",
    "eventsourcing/managers/test_machine.py",
    "eventsourcing/managers/test_outgoing.py",
    "eventsourcing/managers/test_rules.py",
    "eventsourcing/queries/test_durable_state.py",
    "eventsourcing/queries/test_failure.py",
    "eventsourcing/queries/test_live.py",
    "eventsourcing/queries/test_ordering.py",
    "eventsourcing/service/test_lanes.py",
    "eventsourcing/stores/test_json_codec.py",
    "eventsourcing/stores/test_later.py",
    "eventsourcing/stores/test_store_contract.py",
    "eventsourcing/stores/test_wrapped.py",
    "eventsourcing/test_commands.py",
    "test_alone.py",
    "test_by_name.py",
    "test_counters.py",
    "test_escaping.py",
    "test_layers.py",
}
"""Files, and folders with all below them. Add yours when it fits and is quick; nothing has to be in here."""

BESIDE = {"any_postgres", "beam_otp", "epmd", "epmd_port", "postgres", "pytester"}
"""Fixtures that start something, and values of parameters that ask for one: such a test is not alone."""

REFUSED = {
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "socket.bind",
    "socket.connect",
    "subprocess.Popen",
}
"""What a test that is alone does not do: events of `sys.addaudithook`."""


def is_listed(path: Path) -> bool:
    """Whether a file is in the table."""
    if not path.is_relative_to(TESTS):
        return False
    name = path.relative_to(TESTS).as_posix()
    return any(name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in ALONE)


def is_alone(item: pytest.Item) -> bool:
    """Whether a test needs nothing beside this interpreter."""
    asked_for = {*getattr(item, "fixturenames", ())}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        asked_for |= {value for value in item.callspec.params.values() if isinstance(value, str)}
    if BESIDE & asked_for or item.get_closest_marker("beside"):
        return False
    return is_listed(item.path)


class NotAlone(AssertionError):
    """A test of the quick subset reached beyond its interpreter."""


_armed = False
_seen: list[str] = []


@contextmanager
def kept_alone() -> Iterator[None]:
    """Refuse to start OS processes and to make connections.

    Raises:
        NotAlone: something tried, even if whoever was refused made nothing of it.
    """
    global _armed
    _watch()
    _seen.clear()
    _armed = True
    try:
        yield
    finally:
        _armed = False
    if _seen:
        raise NotAlone(f"this test is listed in tests/alone.py, and does {', '.join(_seen)}")


def _on_event(event: str, args: object) -> None:
    if _armed and event in REFUSED:
        _seen.append(event)
        raise NotAlone(f"{event} in a test that is listed in tests/alone.py")


_watching = False


def _watch() -> None:
    global _watching
    if not _watching:
        _watching = True
        sys.addaudithook(_on_event)
