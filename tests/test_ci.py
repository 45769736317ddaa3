"""What `.ci/run` runs is what the README tells its readers to run; what runs before a commit is of that."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.test_static import COMMANDS

ROOT = Path(__file__).parent.parent

ELSEWHERE = {"chromium-browser", "clang", "gcc", "gleam", "java", "javac", "unshare"}
"""Another name for what is installed, what is skipped visibly without or is only a benchmark's, and what every Debian
has."""


def readme_test_line() -> str:
    """Return the one line of the README's code blocks that installs the test extra."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    lines = [line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines()]
    found = {line for line in lines if "[test]" in line and "pytest" in line}
    assert len(found) == 1, f"the README should have one test line, has {sorted(found)}"
    return found.pop()


def test_ci_runs_exactly_the_test_line_of_the_readme() -> None:
    commands = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert commands.count(readme_test_line()) == 1


def test_ci_is_a_valid_script_and_executable() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_ci_lets_no_missing_tool_pass_as_a_skip() -> None:
    assert "export PYGLYN_REQUIRE_ALL=1" in (ROOT / ".ci" / "run").read_text()


def hooks() -> dict[str, dict[str, str]]:
    """Read the hooks of ``.pre-commit-config.yaml`` by their ids: what each has on lines of its own."""
    found: dict[str, dict[str, str]] = {}
    for line in (ROOT / ".pre-commit-config.yaml").read_text().splitlines():
        match line.strip().removeprefix("- ").partition(": "):
            case "id", _, id:
                found[id] = hook = {}
            case key, ": ", value if found:
                hook[key] = value
    return found


def test_before_a_commit_runs_what_the_suite_runs_of_linter_formatter_and_type_checker() -> None:
    """The same commands, and by ``language: system`` the same versions: those of the environment."""
    before = {hook["entry"] for hook in hooks().values()}
    assert {f"python -m {' '.join(command)}" for command in COMMANDS} < before
    assert {hook["language"] for hook in hooks().values()} == {"system"}


def test_before_a_commit_and_a_push_runs_only_what_the_suite_runs() -> None:
    for id, hook in hooks().items():
        module, *options = hook["entry"].removeprefix("python -m ").split()
        assert [module, *options] in COMMANDS or module == "pytest", id
        assert all((ROOT / option).exists() for option in options if option.endswith(".py")), id


def test_the_hooks_are_read_from_the_file() -> None:
    assert hooks()["mypy"] | {"name": ""} == {
        "name": "",
        "entry": "python -m mypy",
        "language": "system",
        "types_or": "[python, pyi, toml]",
        "pass_filenames": "false",
    }
    assert hooks()["alone"]["entry"] == "python -m pytest -q -m alone"


def test_ci_installs_every_program_that_a_test_looks_for() -> None:
    """A test without its program fails there; on a machine that once had it by hand, nobody would notice."""
    script = (ROOT / ".ci" / "run").read_text()
    sought = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"""which\(["']([\w-]+)["']""", path.read_text())
    }
    assert {"strace", "chromium", "pgbouncer"} <= sought
    assert {name for name in sought - ELSEWHERE if f"command -v {name} " not in script} == set()
    packages = {
        word
        for path in (ROOT / "tests").rglob("*.py")
        for word in re.findall(r"Debian's ([a-z][a-z-]+)[)]", path.read_text())
    }
    assert {word for word in packages if not re.search(rf"missing\+=\([^)]*\b{word}\b", script)} == set()
