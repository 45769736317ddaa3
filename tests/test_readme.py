"""The README's programs are those of ``examples/``, which have tests of their own, and its commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from pyglyn.cli import COMMANDS
from pyglyn.testing.otp import find_otps

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
EXAMPLES = [path.read_text() for path in sorted((ROOT / "examples").rglob("*.py"))]
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS[1:-1], ids=range(1, len(SNIPPETS) - 1))
def test_a_snippet_is_part_of_an_example(snippet: str) -> None:
    assert any(snippet in example for example in EXAMPLES), snippet


def test_the_last_snippet_is_a_test_that_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(textwrap.dedent(SNIPPETS[-1]))
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.runpytest_subprocess().assert_outcomes(passed=len(find_otps()))


def test_programs_that_tests_start_ignore_no_signal() -> None:
    """The README's line for the tests may be run below ``nohup``; see the next test."""
    ask = "import signal; print([s.name for s in (signal.SIGHUP, signal.SIGQUIT) if not signal.getsignal(s) == 0])"
    answered = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, timeout=60)
    assert answered.stdout == "[]\n"


def test_the_same_below_nohup() -> None:
    this = f"{__file__}::{test_programs_that_tests_start_ignore_no_signal.__name__}"
    ignoring = ("sh", "-c", "trap '' HUP INT QUIT && exec \"$@\"", "nohup")
    tests = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", this)
    ran = subprocess.run([*ignoring, *tests], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout


def test_every_command_named_in_the_readme_exists() -> None:
    rows = re.findall(r"^\| `pyglyn (.*?)` \|", README, re.MULTILINE)
    assert rows
    for row in rows:
        for word in re.split(r"`, `", row):
            assert word.split()[0] in COMMANDS


def test_every_command_is_named_in_the_readme() -> None:
    for name in COMMANDS:
        assert re.search(rf"`(pyglyn )?{name}\b", README), name


def test_links_lead_to_files() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_a_script_beside_a_clone_imports_the_package(tmp_path: Path) -> None:
    """A folder of the package's name, which a clone is, hides a package that is installed by an import hook."""
    (tmp_path / "pyglyn").mkdir()
    (tmp_path / "first.py").write_text("from pyglyn import Atom, Node, Process; print(Atom)")
    command = [sys.executable, str(tmp_path / "first.py")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
