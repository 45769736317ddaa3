"""Peers that are no part of Erlang: nodes with a real syn, and nodes with Gleam programs on it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from pyglyn.testing import Beam, Beams

INTEROP = Path(__file__).parent.parent / "interop"
PROGRAMS = Path(__file__).parent.parent / "pyglyn" / "interop" / "gleam"

SYN_EBIN = "PYGLYN_SYN_EBIN"
"""The environment variable with the `ebin` folders of compiled syn releases, separated by ``:``."""

GLEAM_PACKAGES = "PYGLYN_GLEAM_PACKAGES"
"""The environment variable with a folder of checked-out Gleam packages, for machines that cannot reach Hex."""

SERVICES = ("inventory_service", "order_service")

_BUILD_TIMEOUT_S = 600.0
_SIGIL_REFUSED = "syntax error before: '~'"


def syn_ebins() -> list[Path]:
    """Return the folders that ``PYGLYN_SYN_EBIN`` names."""
    return [Path(name) for name in os.environ.get(SYN_EBIN, "").split(":") if name]


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
        otp: int | None = None,
    ) -> Beam:
        """Start a node with syn running in the scopes given."""
        beam = await self.beams.start(
            name, args=["-pa", str(self.ebin), *args], hidden=hidden, env=env, otp=otp
        )
        await beam.load(INTEROP / "erlang" / "syn_driver.erl")
        await beam.eval(f"ok = syn_driver:start([{', '.join(scopes)}])")
        return beam


@attrs.frozen
class GleamBeams:
    """Starts nodes that can run the programs of `pyglyn/interop/gleam`, as Erlang modules ``pyglyn_interop@…``."""

    beams: Beams
    ebins: Sequence[Path]

    async def start(self, name: str | None = None, *, args: Sequence[str] = (), hidden: bool = False) -> Beam:
        """Start a node with syn running and the programs' code at hand."""
        paths = [word for ebin in self.ebins for word in ("-pa", str(ebin))]
        beam = await self.beams.start(name, args=[*paths, *args], hidden=hidden)
        await beam.eval("{ok, _} = application:ensure_all_started(syn), ok")
        return beam


@attrs.frozen
class ServiceBeams:
    """Starts nodes that run a service of the example `distributed_nodes` of Gleam's eventsourcing_glyn."""

    beams: Beams
    ebins: Sequence[Path]

    @property
    def cookie(self) -> str:
        """Return the cookie of the nodes."""
        return self.beams.cookie

    async def start(self, service: str, name: str | None = None) -> Beam:
        """Start a node and the program ``inventory_service`` or ``order_service`` on it."""
        paths = [word for ebin in self.ebins for word in ("-pa", str(ebin))]
        beam = await self.beams.start(name, args=paths)
        await beam.eval("{ok, _} = application:ensure_all_started(syn), io:setopts(user, [{encoding, utf8}])")
        await beam.eval(f"spawn(fun() -> group_leader(whereis(user), self()), {service}:main() end)")
        return beam


def build_gleam_services(folder: Path) -> list[Path]:
    """Compile the unchanged services of eventsourcing_glyn's example; return all their `ebin` folders.

    Skips the running test where there is no compiler, or nobody says where the sources are: they are in the
    package's repository, not in the package.
    """
    packages = os.environ.get(GLEAM_PACKAGES)
    sources = Path(packages or "/nowhere") / "eventsourcing_glyn" / "examples" / "distributed_nodes"
    if not sources.is_dir():
        pytest.skip(f"the sources of eventsourcing_glyn's examples are not at hand (see {GLEAM_PACKAGES})")
    ebins = [ebin for name in SERVICES for ebin in _build(sources / name, folder / name)]
    return list({ebin.parent.name: ebin for ebin in ebins}.values())


def build_gleam_programs(folder: Path) -> list[Path]:
    """Compile a copy of `pyglyn/interop/gleam` in ``folder`` and return all its `ebin` folders, syn's included.

    Skips the running test where there is no compiler, no way to the packages, or no syn.
    """
    return _build(PROGRAMS, folder / "gleam")


def _build(source: Path, project: Path) -> list[Path]:
    if shutil.which("gleam") is None:
        pytest.skip("no `gleam` on PATH")
    shutil.copytree(source, project, ignore=shutil.ignore_patterns("build", "manifest.toml"))
    if packages := os.environ.get(GLEAM_PACKAGES):
        _use_packages_of(Path(packages), project / "gleam.toml")
    resolved = _gleam(project, "deps", "download")
    if resolved.returncode != 0:
        pytest.skip(f"Gleam's packages cannot be had (see {GLEAM_PACKAGES}): {_last_words(resolved.stderr)}")
    built = _gleam(project, "build")
    if built.returncode != 0:
        if _SIGIL_REFUSED in built.stdout + built.stderr:
            pytest.skip("this `gleam` (1.18 or later) writes Erlang for OTP 27; the one on PATH is older")
        pytest.fail(f"gleam build:\n{built.stdout}{built.stderr}", pytrace=False)
    ebins = sorted(project.glob("build/dev/erlang/*/ebin"))
    if not any((ebin / "syn.beam").exists() for ebin in ebins):
        if not syn_ebins():
            pytest.skip(f"no compiled syn: name its ebin folder in {SYN_EBIN}")
        ebins.append(syn_ebins()[0])
    return ebins


def _use_packages_of(packages: Path, toml: Path) -> None:
    def path_instead(match: re.Match[str]) -> str:
        return f'{match[1]} = {{ path = "{packages / match[1]}" }}'

    text, _, _ = toml.read_text().partition("[dev-dependencies]")
    toml.write_text(re.sub(r'^(\w+) = (">=|\{ path).*$', path_instead, text, flags=re.MULTILINE))


def _gleam(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["gleam", *command],
        cwd=project,
        capture_output=True,
        text=True,
        timeout=_BUILD_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )


def _last_words(text: str) -> str:
    return " ".join(text.split())[-160:]
