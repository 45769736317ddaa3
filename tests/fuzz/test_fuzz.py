"""A short run of the fuzzing harness over generated terms, with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from pyglyn.testing import require
from tests.fuzz import structured
from tests.fuzz.building import ROOT, build, build_interpreter, environment
from tests.fuzz.generate import Terms, inputs

COUNT = 4_000


def test_generated_terms_do_no_harm_in_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    require(compiler, "fuzzing the codec takes a C compiler with sanitizers")
    assert compiler is not None
    program = build(tmp_path, compiler, libfuzzer=False)
    file = tmp_path / "inputs"
    file.write_bytes(b"".join(len(data).to_bytes(4, "big") + data for data in inputs(COUNT, seed=9)))
    done = subprocess.run(
        [program, file], env=environment(), capture_output=True, text=True, timeout=500, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{COUNT} inputs\n"), done.stderr[-4000:]


def test_generated_terms_have_every_shape() -> None:
    seen: set[str] = set()

    def look(term: object) -> None:
        seen.add(type(term).__name__)
        if isinstance(term, (tuple, list)):
            for each in term:
                look(each)

    terms = Terms(3)
    for _ in range(2_000):
        look(terms.term())
    expected = "Atom BitString Export ImproperList NoneType Pid Port Reference TermMap bool bytes float int list tuple"
    assert seen >= set(expected.split())


def test_peers_and_missing_memory_do_no_harm_in_c(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    require(compiler, "fuzzing what a node has in C takes a C compiler with sanitizers")
    assert compiler is not None
    program = build_interpreter(tmp_path, compiler, libfuzzer=False)
    held = [f"tests/node/test_hot_{name}.py" for name in ("held", "memory")]
    fuzz = ["tests.fuzz.structured", "node", "--seed", "3", "--count", "800"]
    for arguments in (fuzz, ["pytest", "-q", "-p", "no:cacheprovider", *held]):
        done = subprocess.run(
            [program, "-m", *arguments],
            cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=500, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.parametrize("machine", structured.MACHINES)
def test_what_is_nearly_right_is_refused_in_words_and_answered_with_little(machine: str) -> None:
    if machine in structured.IN_C:
        require(importlib.util.find_spec("pyglyn.node._hot"), "pyglyn.node._hot was not built")
    done, refused = structured.run(machine, seed=11, count=1500)
    assert done >= 1500
    assert refused < done
