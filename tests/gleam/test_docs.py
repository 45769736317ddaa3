"""The examples of docs/gleam.md run, one after the other, and hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pyglyn.gleam import decode

TEXT = (Path(__file__).parents[2] / "docs" / "gleam.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_the_examples_hold() -> None:
    names: dict[str, Any] = {"__name__": "docs"}
    for example in EXAMPLES:
        exec(compile(example, "docs/gleam.md", "exec", dont_inherit=True), names)
    assert names["by_hand"].decode(names["term"]) == names["event"]


def test_every_function_named_there_exists() -> None:
    (sentence,) = re.findall(r"with its errors: (.*?)\. What Gleam", TEXT, re.DOTALL)
    named = re.findall(r"`(\w+)`", sentence)
    assert len(named) > 20
    assert set(named) <= set(decode.__all__)
