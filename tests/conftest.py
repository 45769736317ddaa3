"""Settings and fixtures for the whole suite. The nodes come from the plugin in `pyglyn.testing.plugin`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import hypothesis
import pytest

from pyglyn.testing import Beam, Beams

INTEROP = Path(__file__).parent.parent / "interop"

SYN_EBIN = "PYGLYN_SYN_EBIN"
"""The environment variable with the `ebin` folders of compiled syn releases, separated by ``:``."""

# A loaded machine is slow for reasons that no example is to blame for.
hypothesis.settings.register_profile(
    "pyglyn", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("pyglyn")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of a real syn once per release found."""
    if "syn_ebin" in metafunc.fixturenames:
        found = [Path(name) for name in os.environ.get(SYN_EBIN, "").split(":") if name]
        ids = [path.parent.name if path.name == "ebin" else path.name for path in found]
        metafunc.parametrize("syn_ebin", found or [None], ids=ids or ["no-syn"], indirect=True)


@pytest.fixture
def syn_ebin(request: pytest.FixtureRequest) -> Path:
    """The folder of one compiled syn. Syn is no part of Erlang and no package here: a test may do without."""
    if request.param is None:
        pytest.skip(f"no compiled syn: name its ebin folder in {SYN_EBIN}")
    assert (request.param / "syn.beam").exists(), f"{SYN_EBIN}: no syn.beam in {request.param}"
    return Path(request.param)


@attrs.frozen
class SynBeams:
    """Starts nodes that run a real syn and the helper module `interop/erlang/syn_driver.erl`."""

    beams: Beams
    ebin: Path

    async def start(
        self,
        name: str | None = None,
        *,
        scopes: Sequence[str] = ("example",),
        args: Sequence[str] = (),
        hidden: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Beam:
        """Start a node with syn running in the scopes given."""
        beam = await self.beams.start(name, args=["-pa", str(self.ebin), *args], hidden=hidden, env=env)
        await beam.load(INTEROP / "erlang" / "syn_driver.erl")
        await beam.eval(f"ok = syn_driver:start([{', '.join(scopes)}])")
        return beam


@pytest.fixture
def syn_beams(beams: Beams, syn_ebin: Path) -> SynBeams:
    """A factory of nodes with a real syn; the test runs once per syn release and OTP release."""
    return SynBeams(beams, syn_ebin)


@pytest.fixture
def syn_beam(syn_beams: SynBeams) -> Beam:
    """A node with a real syn in scope ``example``."""
    return asyncio.run(syn_beams.start())
