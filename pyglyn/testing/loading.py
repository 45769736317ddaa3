"""Getting an Erlang module into a node under test, with a compiler or without."""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
from pathlib import Path

from pyglyn.testing import interpreted
from pyglyn.testing.otp import Otp, find_compiler
from pyglyn.testing.terms import binary

_LOAD = """
{module, Module} = code:load_binary(list_to_atom(binary_to_list(Name)), binary_to_list(File), Code), Module
"""

_compiled: dict[tuple[Path, int, int], bytes] = {}


async def load(beam: interpreted.Evaluates, otp: int, path: Path) -> None:
    """Compile the module and load it; see `Beam.load`."""
    compiler = find_compiler(otp)
    if compiler is None:
        await interpreted.load(beam, path)
        return
    code = await asyncio.to_thread(_object_code, compiler, path)
    await beam.eval_bytes(_LOAD, Name=binary(path.stem), File=binary(str(path)), Code=binary(code))


def _object_code(compiler: Otp, path: Path) -> bytes:
    key = (path.resolve(), path.stat().st_mtime_ns, compiler.release)
    if key not in _compiled:
        _compiled[key] = compile_module(compiler, path)
    return _compiled[key]


def compile_module(compiler: Otp, path: Path) -> bytes:
    """Compile with the `erlc` of an installation and return the object code.

    Raises:
        SyntaxError: it does not compile; the text is the compiler's.
    """
    with tempfile.TemporaryDirectory(prefix="pyglyn-erlc-") as folder:
        command = [str(compiler.erlc), "+debug_info", "-I", str(path.parent), "-o", folder, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, env=None, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise SyntaxError(f"{path}:\n{done.stdout}{done.stderr}")
        return (Path(folder) / f"{path.stem}.beam").read_bytes()
