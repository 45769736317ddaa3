"""What `.ci/run` runs is what the README tells its readers to run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent


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
