"""What is built of the project: a wheel that works where there is no compiler, and an sdist with all of it."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from pyglyn.testing import require

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pyglyn"


def called(*words: str | Path, **more: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=500, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the project as a clone has them, without what was built."""
    require((ROOT / ".git").exists(), "the project is no clone")
    copy = tmp_path_factory.mktemp("tree")
    names = called("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def built(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    called(sys.executable, "-m", "build", "--sdist", "--outdir", folder, tree)
    (sdist,) = folder.glob("*.tar.gz")
    called(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, sdist)
    return folder


def test_an_sdist_has_everything_that_a_clone_has(built: Path, tree: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for folder in ("tests", "docs", "examples", "interop", "pyglyn", ".ci"):
        files = {each.relative_to(tree).as_posix() for each in (tree / folder).rglob("*") if each.is_file()}
        assert files
        assert not files - names
    assert {"CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "pyproject.toml"} <= names


def test_a_wheel_has_the_package_and_its_data_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.whl")
    names = zipfile.ZipFile(path).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {"pyglyn"}
    for name in (
        "py.typed",
        "interop/pyglyn_child.erl",
        "interop/gleam/src/pyglyn_interop/bank_client.gleam",
    ):
        assert f"pyglyn/{name}" in names


def test_an_installed_wheel_runs_the_demo_where_there_is_no_compiler(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    no_compiler = {**outside, "PATH": "/nowhere", "CC": "/nowhere/cc", "HOME": str(tmp_path)}
    called(
        python,
        "-m",
        "pip",
        "install",
        "-q",
        f"{wheel}[beam]",
        env={**no_compiler, "PIP_ONLY_BINARY": ":all:"},
    )
    run = {"cwd": tmp_path, "env": {**no_compiler, "PATH": "/usr/bin:/bin"}}
    assert (
        called(
            python,
            "-c",
            "import pyglyn.etf as e, os; print(e.IMPLEMENTATION, os.path.dirname(e.__file__))",
            **run,
        )
        .split()[1]
        .startswith(str(tmp_path))
    )
    called(python, "-m", "pyglyn", "demo", **run)
    called(python, "-m", "pyglyn", "interop", tmp_path / "files", **run)
    assert (tmp_path / "files" / "pyglyn_child.erl").read_bytes() == (
        ROOT / "pyglyn/interop/pyglyn_child.erl"
    ).read_bytes()


@pytest.mark.parametrize(
    ("platform", "kinds"),
    [
        ("linux", "manylinux_x86_64 manylinux_aarch64 musllinux_x86_64 musllinux_aarch64"),
        ("macos", "macosx_x86_64 macosx_arm64"),
    ],
)
def test_cibuildwheel_builds_a_wheel_for_each_python_and_platform(platform: str, kinds: str) -> None:
    """As its configuration says; free-threaded builds are not among them: the extensions take the GIL."""
    said = called(
        sys.executable, "-m", "cibuildwheel", "--print-build-identifiers", "--platform", platform, ROOT
    )
    pythons = ("cp311", "cp312", "cp313", "cp314")
    assert set(said.split()) == {f"{python}-{kind}" for python in pythons for kind in kinds.split()}


def test_each_extension_says_that_it_needs_the_gil() -> None:
    texts = [path.read_text() for path in PACKAGE.rglob("*.c")]
    modules = [text for text in texts if "PyModuleDef " in text]
    extensions = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["ext-modules"]
    said, by_header = "{Py_mod_gil, Py_MOD_GIL_USED}", "slots[] = MODULE_SLOTS(module_exec);"
    assert [text.count(said) + text.count(by_header) for text in modules] == [1] * len(extensions)
    assert (PACKAGE / "gleam" / "c" / "kinds.h").read_text().count(said) == 1


def test_a_node_on_windows_is_refused_in_one_sentence() -> None:
    program = "import sys; sys.platform = 'win32'\ntry: import pyglyn.node\nexcept ImportError as error: print(error)"
    assert called(sys.executable, "-c", program, cwd=ROOT) == (
        "pyglyn.node needs POSIX (forks, signals, Unix sockets): on Windows it runs in WSL\n"
    )
