"""Who looks for the test of a module finds it: by its name, or in the table here.

``pyglyn/node/runtime.py`` has ``tests/node/test_runtime.py``, or the table says which files test it. An entry is for a
module whose rules show only together with others, in real nodes, OS processes or databases; what decides
something by itself has a file of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE, TESTS = ROOT / "pyglyn", ROOT / "tests"

CODEC = "etf/test_implementations.py etf/test_values.py etf/test_golden.py etf/test_damaged.py"
PRINTING = "etf/test_text.py etf/test_io_lib.py"
GLEAM = "gleam/test_values.py gleam/test_round_trips.py gleam/test_plans.py gleam/test_plans_of_bytes.py"
DURABLE = "queries/test_durable.py queries/test_durable_faults.py queries/test_durable_effects.py"
STORES = "stores/test_store_contract.py"
CHILDREN = "supervision/test_server.py supervision/test_spawning.py supervision/test_nothing_left.py"
TOOLS = "supervision/test_tools.py"

ELSEWHERE = {
    "_main_module.py": "supervision/test_spawning.py",
    "_standard.py": "supervision/test_standard_streams.py",
    "_version.py": "cli/test_cli.py",
    "certificates.py": "net/test_tls.py",
    "cli/call.py": "cli/test_cli.py",
    "cli/certs.py": "net/test_tls.py",
    "cli/demo.py": "cli/test_cli.py",
    "cli/epmd.py": "net/test_epmd_server.py",
    "cli/eventsourcing.py": "cli/test_eventsourcing_commands.py",
    "cli/groups.py": "cli/test_groups_commands.py",
    "cli/interop.py": "test_packages.py",
    "cli/known.py": "cli/test_configuration.py",
    "cli/network.py": "cli/test_cli.py",
    "cli/node.py": "cli/test_cli.py supervision/test_nothing_left.py",
    "cli/observe.py": "http/test_page.py",
    "cli/options.py": "cli/test_cli.py cli/test_commands.py",
    "cli/store.py": "eventsourcing/stores/test_care.py",
    "cli/tables.py": "cli/test_cli.py cli/test_groups_commands.py",
    "cli/tree.py": "supervision/test_cli_tree.py",
    "cli/values.py": "cli/test_json.py",
    "dist/framing.py": "dist/test_channel.py dist/test_headers.py",
    "errors.py": "gleam/test_decode.py etf/test_damaged.py",
    "etf/decoder.py": CODEC,
    "etf/encoder.py": CODEC,
    "etf/formatter.py": PRINTING,
    "etf/io_pretty.py": PRINTING,
    "etf/io_write.py": PRINTING,
    "etf/maps.py": "etf/test_values.py etf/test_limits.py",
    "etf/normaliser.py": "etf/test_round_trip.py etf/test_implementations.py",
    "etf/pure.py": CODEC,
    "etf/readers.py": CODEC,
    "etf/scanner.py": PRINTING,
    "etf/tags.py": "etf/test_damaged.py",
    "etf/terms.py": "etf/test_values.py",
    "etf/writers.py": CODEC,
    "eventsourcing/cluster/broadcast.py": "eventsourcing/test_glyn.py eventsourcing/stores/test_wrapped.py",
    "eventsourcing/cluster/client.py": "eventsourcing/cluster/test_routing.py eventsourcing/service/test_server.py",
    "eventsourcing/cluster/closing.py": "eventsourcing/test_supervised.py",
    "eventsourcing/cluster/owners.py": "eventsourcing/cluster/test_routing.py",
    "eventsourcing/cluster/reachable.py": "http/test_health.py",
    "eventsourcing/cluster/scope.py": "eventsourcing/cluster/test_sources.py",
    "eventsourcing/domain/aggregate.py": "eventsourcing/domain/test_domain.py",
    "eventsourcing/domain/copying.py": "eventsourcing/test_commands.py",
    "eventsourcing/domain/envelope.py": "eventsourcing/domain/test_domain.py",
    "eventsourcing/domain/lenient.py": "eventsourcing/domain/test_evolution.py",
    "eventsourcing/domain/snapshot.py": "eventsourcing/domain/test_domain.py eventsourcing/test_commands.py",
    "eventsourcing/domain/wire.py": "eventsourcing/test_glyn.py eventsourcing/domain/test_evolution.py",
    "eventsourcing/managers/server.py": "managers/test_manager.py",
    "eventsourcing/managers/spec.py": "managers/test_manager.py",
    "eventsourcing/managers/transitions.py": "managers/test_manager.py",
    "eventsourcing/queries/durable_calls.py": DURABLE,
    "eventsourcing/queries/durable_server.py": DURABLE,
    "eventsourcing/queries/durable_spec.py": DURABLE,
    "eventsourcing/queries/parking.py": "queries/test_live.py queries/test_durable_faults.py",
    "eventsourcing/queries/query_process.py": "service/test_server.py queries/test_durable_status.py",
    "eventsourcing/queries/turns.py": "queries/test_durable_effects.py",
    "eventsourcing/service/front.py": "eventsourcing/test_supervised.py",
    "eventsourcing/stores/care_database.py": "stores/test_care.py",
    "eventsourcing/stores/facts/care.py": "stores/test_facts_care.py",
    "eventsourcing/stores/facts/log.py": "stores/test_facts.py",
    "eventsourcing/stores/facts/opening.py": "stores/test_facts.py",
    "eventsourcing/stores/facts/rows.py": "stores/test_facts.py",
    "eventsourcing/stores/facts/sql.py": "stores/test_facts.py",
    "eventsourcing/stores/facts/store.py": "stores/test_facts.py",
    "eventsourcing/stores/json/codec.py": "stores/test_json_codec.py",
    "eventsourcing/stores/json/collections.py": "stores/test_json_codec.py",
    "eventsourcing/stores/json/columns.py": "stores/test_json_plans.py",
    "eventsourcing/stores/json/plans.py": "stores/test_json_plans.py",
    "eventsourcing/stores/json/quick.py": "stores/test_json_codec.py",
    "eventsourcing/stores/json/scalars.py": "stores/test_json_codec.py",
    "eventsourcing/stores/json/text.py": "stores/test_json_codec.py",
    "eventsourcing/stores/json/upcasting.py": "domain/test_evolution.py",
    "eventsourcing/stores/memory.py": STORES,
    "eventsourcing/stores/memory_managing.py": "stores/test_managing.py",
    "eventsourcing/stores/opening.py": f"{STORES} stores/test_postgres_store.py",
    "eventsourcing/stores/postgres.py": f"{STORES} stores/test_postgres_store.py",
    "eventsourcing/stores/postgres_appends.py": f"{STORES} stores/test_postgres_store.py stores/test_postgres_telling.py",
    "eventsourcing/stores/postgres_database.py": "stores/test_postgres_store.py stores/test_postgres_poolers.py",
    "eventsourcing/stores/postgres_pages.py": f"{STORES} stores/test_postgres_store.py stores/test_postgres_numbering.py",
    "eventsourcing/stores/postgres_transaction.py": f"{STORES} stores/test_postgres_store.py",
    "eventsourcing/stores/read_only_sql.py": "stores/test_selecting.py",
    "eventsourcing/stores/selecting_postgres.py": "stores/test_selecting.py",
    "eventsourcing/stores/readonly.py": "stores/test_layout.py cli/test_eventsourcing_commands.py",
    "eventsourcing/stores/recorder.py": "stores/test_eventsourcing_package.py",
    "eventsourcing/stores/rows.py": f"{STORES} stores/test_gleam_tables.py",
    "eventsourcing/stores/sql.py": f"{STORES} stores/test_sqlite_store.py",
    "eventsourcing/stores/sql_managing.py": "stores/test_managing.py",
    "eventsourcing/stores/sqlite.py": f"{STORES} stores/test_sqlite_store.py",
    "eventsourcing/stores/sqlite_database.py": "stores/test_sqlite_store.py",
    "eventsourcing/stores/sqlite_wal.py": "stores/test_sqlite_store.py",
    "eventsourcing/stores/store.py": STORES,
    "forks.py": "node/test_forks.py",
    "gleam/annotations.py": GLEAM,
    "gleam/decoding.py": GLEAM,
    "gleam/dynamic.py": "gleam/test_decode.py gleam/test_decode_as_gleam.py",
    "gleam/encoding.py": GLEAM,
    "gleam/shapes.py": GLEAM,
    "gleam/types.py": GLEAM,
    "glyn/registry.py": "glyn/test_glyn.py glyn/test_glyn_gleam.py",
    "glyn/subject.py": "glyn/test_glyn.py glyn/test_glyn_gleam.py",
    "groups/pg.py": "groups/test_pg_live.py groups/test_pg_random.py",
    "groups/syn.py": "groups/test_syn_live.py",
    "groups/syn_scope.py": "groups/test_syn_live.py groups/test_hostile_peers.py",
    "http/events.py": "http/test_page.py",
    "http/exposition.py": "http/test_metrics.py",
    "http/observed.py": "http/test_page.py",
    "http/pages.py": "http/test_page.py",
    "http/server.py": "http/test_health.py",
    "net/connection.py": "net/test_peers.py net/test_adversaries.py",
    "net/epmd_client.py": "net/test_epmd_server.py",
    "net/listener.py": "net/test_peers.py",
    "net/registrar.py": "net/test_epmd_server.py net/test_real_nodes.py",
    "net/settings.py": "net/test_epmd_server.py node/test_settings.py",
    "node/admission.py": "node/test_worker_socket.py",
    "node/census.py": "supervision/test_process_info.py",
    "node/garbage.py": "node/test_collector.py",
    "node/global_names.py": "node/test_global.py",
    "node/hiding.py": "cli/test_secrets.py node/test_cookie.py",
    "node/os_timer.py": "node/test_stalls.py",
    "node/measures.py": "http/test_metrics.py",
    "node/node.py": "node/test_processes.py node/test_interop_messages.py",
    "node/output.py": "node/test_io.py",
    "node/process.py": "node/test_processes.py node/test_runtime.py node/test_dead_processes.py",
    "node/process_info.py": "supervision/test_process_info.py",
    **dict.fromkeys(
        (
            f"node/tools/{name}.py"
            for name in (
                "applications",
                "appmon",
                "clocks",
                "live_dashboard",
                "modules",
                "observer_backend",
                "ports",
                "processes",
                "system_info",
                "terms",
                "trees",
            )
        ),
        TOOLS,
    ),
    "node/worker.py": "node/test_worker_socket.py node/test_worker_link.py",
    "supervision/bodies.py": "supervision/test_server.py supervision/test_blocking.py",
    "supervision/boot.py": "supervision/test_spawning.py",
    "supervision/child.py": CHILDREN,
    "supervision/child_loop.py": CHILDREN,
    "supervision/effects.py": "supervision/test_policy.py",
    "supervision/launcher.py": CHILDREN,
    "supervision/os/command.py": "supervision/test_erlang_spec.py supervision/os/test_program.py",
    "supervision/os/main_module.py": "supervision/test_spawning.py",
    "supervision/os/process.py": "supervision/os/test_processes.py",
    "supervision/place.py": CHILDREN,
    "supervision/running.py": CHILDREN,
    "supervision/spec.py": "supervision/test_declaration.py supervision/test_policy.py supervision/test_requests.py",
    "testing/bank.py": "examples/test_bank_account.py eventsourcing/test_commands.py",
    "testing/driver.py": "testing/test_beam.py",
    "testing/epmd.py": "testing/test_plugin.py",
    "testing/eventsourcing.py": "testing/test_event_store_contract.py eventsourcing/domain/test_domain.py",
    "testing/interpreted.py": "testing/test_beam.py",
    "testing/leaks.py": "testing/test_aids.py",
    "testing/loading.py": "testing/test_beam.py",
    "testing/otp.py": "testing/test_beam.py testing/test_aids.py",
    "testing/postgres.py": "testing/test_aids.py stores/test_postgres_store.py",
    "testing/requirement.py": "testing/test_aids.py",
    "testing/terms.py": "testing/test_beam.py",
    "testing/waiting.py": "testing/test_aids.py",
}
"""Module -> the files that test it; a folder before the last may be left out."""

NO_RULES = {"__init__.py", "__main__.py"}


def modules() -> list[str]:
    """The modules of the package, as paths below it."""
    found = (path for path in PACKAGE.rglob("*.py") if path.name not in NO_RULES)
    return sorted(path.relative_to(PACKAGE).as_posix() for path in found if "__pycache__" not in path.parts)


def by_name(module: str) -> Path:
    """The file that tests a module by its name."""
    path = Path(module)
    return TESTS / path.parent / f"test_{path.stem.lstrip('_')}.py"


def files_of(entry: str) -> list[list[Path]]:
    """For each file of an entry, what it can mean."""
    return [list(TESTS.glob(f"**/{name}")) for name in entry.split()]


def untested(names: list[str], elsewhere: dict[str, str]) -> list[str]:
    """Modules that have a test neither by name nor in the table."""
    return [name for name in names if not by_name(name).exists() and name not in elsewhere]


def test_each_module_has_a_test_by_its_name_or_an_entry_that_says_where() -> None:
    assert not untested(modules(), ELSEWHERE)


def test_a_module_without_either_is_found() -> None:
    assert untested(["node/runtime.py", "node/brand_new.py", "forks.py"], ELSEWHERE) == ["node/brand_new.py"]


@pytest.mark.parametrize("module", sorted(ELSEWHERE))
def test_an_entry_is_of_a_module_without_one_and_names_what_is_there(module: str) -> None:
    assert (PACKAGE / module).exists(), "the module is gone"
    assert not by_name(module).exists(), "there is a test by its name now"
    assert all(len(found) == 1 for found in files_of(ELSEWHERE[module])), "no such test, or more than one"
