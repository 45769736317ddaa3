"""Build the harness, and fuzz with it by hand.

    python -m tests.fuzz.building FOLDER                     # with libFuzzer: clang, libclang-rt-*-dev
    PYTHONPATH=.:$(python -c 'import attrs, os; print(os.path.dirname(os.path.dirname(attrs.__file__)))') \\
        PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:malloc_context_size=1:quarantine_size_mb=16 \\
        FOLDER/codec -runs=100000000 -timeout=10 -rss_limit_mb=2048 -max_len=512 FOLDER/corpus

    ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=... FOLDER/node -max_len=16384 FOLDER/choices
    ... FOLDER/python -m tests.fuzz.structured node --seconds 3600   # or any other program, such as pytest

``codec`` is of the codec and of Gleam's values; ``node`` and ``python`` have the codec and ``pyglyn.node._hot``.

The first command also writes a corpus of generated terms to begin with. Each process does some 50,000 inputs of up to
512 bytes a second of processor time, a third of that with ``-max_len=4096``. Where there is no clang, the suite runs
such terms through the same code built by the C compiler there is (``test_fuzz.py``).
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import attrs

from tests.fuzz.generate import inputs

ROOT = Path(__file__).parent.parent.parent
SANITIZERS = "address,undefined"


def build(folder: Path, compiler: str, *, libfuzzer: bool) -> Path:
    """Compile the codec and the harness with sanitizers into one program.

    Raises:
        subprocess.CalledProcessError: it could not be compiled.
    """
    plans = ("plans.c", "by_terms.c", "from_bytes.c", "to_bytes.c", "decoders.c")
    sources = [ROOT / "pyglyn" / "gleam" / "c" / name for name in plans]
    sources.append(ROOT / "pyglyn" / "eventsourcing" / "stores" / "json" / "c" / "reading.c")
    return _compile(folder / "codec", compiler, "harness.c", sources, libfuzzer=libfuzzer)


def build_interpreter(folder: Path, compiler: str, *, libfuzzer: bool) -> Path:
    """Compile the codec and ``_hot`` with sanitizers into a Python that has them built in.

    Raises:
        subprocess.CalledProcessError: it could not be compiled.
    """
    program = folder / ("node" if libfuzzer else "python")
    sources = sorted((ROOT / "pyglyn" / "node" / "c").glob("*.c"))
    return _compile(program, compiler, "interpreter.c", sources, libfuzzer=libfuzzer)


def _compile(program: Path, compiler: str, main: str, sources: list[Path], *, libfuzzer: bool) -> Path:
    library, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    sources = [*sorted((ROOT / "pyglyn" / "etf" / "c").glob("*.c")), *sources]
    command = [
        compiler, "-g", "-O2", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined",
        f"-fsanitize={'fuzzer,' if libfuzzer else ''}{SANITIZERS}", *([] if libfuzzer else ["-DWITH_MAIN"]),
        "-I", sysconfig.get_path("include"), "-I", str(ROOT / "pyglyn" / "etf" / "c"),
        str(Path(__file__).parent / main), *map(str, sources),
        f"-L{library}", f"-Wl,-rpath,{library}", f"-lpython{version}", "-lm", "-o", str(program),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    return program


def environment() -> dict[str, str]:
    """What the program needs: the package and its dependencies, and memory that the sanitizer sees."""
    packages = Path(attrs.__file__).parent.parent
    return os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(packages))),
        "PYTHONMALLOC": "malloc",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
    }


def main(folder: Path) -> None:
    """Build with libFuzzer, and write a corpus."""
    compiler = shutil.which("clang")
    if compiler is None:
        sys.exit("clang is not installed")
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    build(folder, compiler, libfuzzer=True)
    build_interpreter(folder, compiler, libfuzzer=True)
    build_interpreter(folder, compiler, libfuzzer=False)
    (folder / "choices").mkdir(exist_ok=True)
    for number in range(100):
        (folder / "choices" / f"{number:05}").write_bytes(random.Random(number).randbytes(100 * number))
    for number, data in enumerate(inputs(2_000, seed=1)):
        (folder / "corpus" / f"{number:05}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
