"""Build the harness, and fuzz with it by hand.

    python -m tests.fuzz.building FOLDER                     # with libFuzzer: clang, libclang-rt-*-dev
    PYTHONPATH=.:$(python -c 'import attrs, os; print(os.path.dirname(os.path.dirname(attrs.__file__)))') \\
        PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0:malloc_context_size=1:quarantine_size_mb=16 \\
        FOLDER/codec -runs=100000000 -timeout=10 -rss_limit_mb=2048 -max_len=512 FOLDER/corpus

The first command also writes a corpus of generated terms to begin with. Each process does some 50,000 inputs of up to
512 bytes a second of processor time, a third of that with ``-max_len=4096``. Where there is no clang, the suite runs
such terms through the same code built by the C compiler there is (``test_fuzz.py``).
"""

from __future__ import annotations

import os
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
    program = folder / "codec"
    library, version = sysconfig.get_config_var("LIBDIR"), sysconfig.get_config_var("LDVERSION")
    plans = ("plans.c", "by_terms.c", "from_bytes.c", "to_bytes.c", "decoders.c")
    sources = sorted(map(str, (ROOT / "pyglyn" / "etf" / "c").glob("*.c")))
    sources += [str(ROOT / "pyglyn" / "gleam" / "c" / name) for name in plans]
    sources.append(str(ROOT / "pyglyn" / "eventsourcing" / "stores" / "json" / "c" / "reading.c"))
    command = [
        compiler, "-g", "-O2", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined",
        f"-fsanitize={'fuzzer,' if libfuzzer else ''}{SANITIZERS}", *([] if libfuzzer else ["-DWITH_MAIN"]),
        "-I", sysconfig.get_path("include"), "-I", str(ROOT / "pyglyn" / "etf" / "c"),
        str(Path(__file__).parent / "harness.c"), *sources,
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
    for number, data in enumerate(inputs(2_000, seed=1)):
        (folder / "corpus" / f"{number:05}").write_bytes(data)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
