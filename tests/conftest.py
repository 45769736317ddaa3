"""Settings and fixtures for the whole suite. Plain nodes come from the plugin in `pyglyn.testing.plugin`."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from pyglyn import logs
from pyglyn.node import Node
from pyglyn.testing import Beam, Beams
from tests.alone import is_alone, is_listed, kept_alone
from tests.peers import (
    SYN_EBIN,
    GleamBeams,
    ServiceBeams,
    SynBeams,
    build_gleam_programs,
    build_gleam_services,
    syn_ebins,
)

# A loaded machine is slow for reasons that no test and no example is to blame for.
os.environ.setdefault("PYGLYN_TEST_PATIENCE", "6")
hypothesis.settings.register_profile(
    "pyglyn", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("alone", hypothesis.settings.get_profile("pyglyn"), max_examples=20)


def pytest_configure(config: pytest.Config) -> None:
    """Choose how many examples there are, before any test is imported; then see to signals that are ignored.

    ``-m alone`` is run often and looks at fewer examples than the whole run. Signals that are ignored, as below
    ``nohup`` or in a script's ``&``, would be so in every program that a test starts, whatever the test sends it;
    functions that do nothing take their place.
    """
    hypothesis.settings.load_profile("alone" if config.option.markexpr == "alone" else "pyglyn")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of a real syn once per release found."""
    if "syn_ebin" in metafunc.fixturenames:
        found = syn_ebins()
        ids = [path.parent.name if path.name == "ebin" else path.name for path in found]
        metafunc.parametrize("syn_ebin", found or [None], ids=ids or ["no-syn"], indirect=True)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import, for ``-m alone``, what has nothing of it."""
    only_these = config.option.markexpr == "alone" and collection_path.name.startswith("test_")
    return True if only_these and collection_path.is_file() and not is_listed(collection_path) else None


def pytest_collection_finish() -> None:
    """Let the garbage collector leave alone what was collected to run: it would look through it all each time."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs nothing but this interpreter, so that ``-m alone`` finds it."""
    for item in items:
        if is_alone(item):
            item.add_marker("alone")


def _logging() -> dict[str, tuple[bool, bool, int, list[logging.Handler]]]:
    """How loggers are set up that a test might change: whether they say anything, and to whom."""
    loggers = {"root": logging.getLogger()} | {
        name: logger
        for name, logger in logging.root.manager.loggerDict.items()
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "pyglyn"
    }
    return {
        name: (logger.disabled, logger.propagate, logger.level, list(logger.handlers))
        for name, logger in loggers.items()
    }


@pytest.fixture(autouse=True)
def _logging_stays() -> Iterator[None]:
    """Hold each test to leave logging as it found it: what one of them silences, a later one misses."""
    before = _logging()
    yield
    untouched = (False, True, logging.NOTSET, [])
    assert {name: state for name, state in _logging().items() if state != before.get(name, untouched)} == {}


@pytest.fixture
def own_logging(_logging_stays: None) -> Iterator[None]:
    """Take back, after the test, what `pyglyn.logs.set_up` and the commands that call it set up."""
    root = logging.getLogger()
    handlers, level, factory = list(root.handlers), root.level, logging.getLogRecordFactory()
    yield
    if logs._present.handler is not None:
        logs._present.handler.close()
    logs._present = logs._Present()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.setLogRecordFactory(factory)


@pytest.fixture(autouse=True)
def _alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold those tests to it."""
    if request.node.get_closest_marker("alone") is None:
        yield
        return
    with kept_alone():
        yield


@pytest.fixture
def make_node() -> Callable[..., Node]:
    """What makes the Python nodes of those tests that `tests/tls` runs once more, with nodes that speak TLS."""
    return Node


@pytest.fixture
def syn_ebin(request: pytest.FixtureRequest) -> Path:
    """The folder of one compiled syn. Syn is no part of Erlang and no package here: a test may do without."""
    if request.param is None:
        pytest.skip(f"no compiled syn: name its ebin folder in {SYN_EBIN}")
    assert (request.param / "syn.beam").exists(), f"{SYN_EBIN}: no syn.beam in {request.param}"
    return Path(request.param)


@pytest.fixture
def syn_beams(beams: Beams, syn_ebin: Path) -> SynBeams:
    """A factory of nodes with a real syn; the test runs once per syn release and OTP release."""
    return SynBeams(beams, syn_ebin)


@pytest.fixture
def syn_beam(syn_beams: SynBeams) -> Beam:
    """A node with a real syn in scope ``example``."""
    return asyncio.run(syn_beams.start())


@pytest.fixture(scope="session")
def gleam_programs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The compiled programs of `pyglyn/interop/gleam`, as a list of `ebin` folders."""
    return build_gleam_programs(tmp_path_factory.mktemp("gleam"))


@pytest.fixture
def gleam_beams(gleam_programs: list[Path], beams: Beams) -> GleamBeams:
    """A factory of nodes with the Gleam programs; the test runs once per OTP release."""
    return GleamBeams(beams, gleam_programs)


@pytest.fixture(scope="session")
def gleam_services(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The compiled example services of eventsourcing_glyn, as a list of `ebin` folders."""
    return build_gleam_services(tmp_path_factory.mktemp("gleam_services"))


@pytest.fixture
def service_beams(gleam_services: list[Path], beams: Beams) -> ServiceBeams:
    """A factory of nodes that run one of those services; the test runs once per OTP release."""
    return ServiceBeams(beams, gleam_services)
