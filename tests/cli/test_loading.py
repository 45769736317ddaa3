"""What ``--app`` names: found, or told in one line what is missing, and where it fails."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pyglyn.cli.loading import load_function, load_object, made_by


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each])
    yield tmp_path
    for name in [each for each in sys.modules if each.startswith("loaded_")]:
        del sys.modules[name]


def refused(reference: str) -> str:
    with pytest.raises(click.ClickException) as caught:
        load_function(reference)
    return caught.value.format_message()


def test_a_module_of_the_current_directory_is_found_and_a_file_anywhere(folder: Path) -> None:
    (folder / "loaded_here.py").write_text("def app(node): return 1")
    (folder / "deep").mkdir()
    (folder / "deep" / "loaded_there.py").write_text("import loaded_beside\napp = loaded_beside.app")
    (folder / "deep" / "loaded_beside.py").write_text("def app(node): return 2")
    assert load_function("loaded_here:app")(None) == 1
    assert load_function("deep/loaded_there.py:app")(None) == 2
    assert load_object("loaded_here:nothing") is None


@pytest.mark.parametrize("reference", ["module", ":app", "module:", "path.py", ""])
def test_what_is_no_reference_is_told_how_to_write_one(folder: Path, reference: str) -> None:
    assert "write module:function or path.py:function" in refused(reference)


def test_a_module_that_is_not_there_says_where_it_was_looked_for(folder: Path) -> None:
    assert f"No module named 'not_here'; it is looked for in {folder}" in refused("not_here.service:app")
    (folder / "loaded_half.py").write_text("import not_here_either")
    assert refused("loaded_half:app").endswith("No module named 'not_here_either'")
    assert "there is no file not_here.py" in refused("not_here.py:app")
    assert refused("\0.py:app").startswith("--app")


def test_a_path_that_cannot_be_looked_at_is_refused_like_one_that_is_not_there(folder: Path) -> None:
    assert "xxx.py" in refused(f"{'x' * 300}.py:app")


def test_a_name_that_is_no_function_says_what_it_is(folder: Path) -> None:
    (folder / "loaded_value.py").write_text("app = 5")
    assert refused("loaded_value:app") == "--app loaded_value:app: app is of type int, and no function"
    assert refused("loaded_value:ap") == "--app loaded_value:ap: loaded_value has no function ap"


def test_a_syntax_error_is_one_line_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "loaded_wrong.py").write_text("\ndef app(node)\n    pass\n")
    for reference in ("loaded_wrong:app", "loaded_wrong.py:app"):
        assert refused(reference).endswith("loaded_wrong.py, line 2: expected ':'")
    assert capsys.readouterr().err == ""


def test_a_module_that_raises_shows_its_own_lines_only(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "loaded_raising.py").write_text("def deep():\n    return {}['PORT']\n\nPORT = deep()\n")
    for reference in ("loaded_raising:app", "loaded_raising.py:app"):
        assert refused(reference) == f"--app {reference}: {reference[:-4]} does not run, see above"
        shown = capsys.readouterr().err
        assert shown.count("  File ") == 2
        assert "line 4, in <module>" in shown
        assert shown.endswith("KeyError: 'PORT'\n")


def test_a_function_that_takes_arguments_or_raises_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    def takes(url: str) -> str:
        return url

    def raises() -> None:
        raise RuntimeError("no database")

    with pytest.raises(click.UsageError, match=r"a:takes: it is called without arguments: missing .*'url'"):
        made_by(takes, "a:takes")
    with pytest.raises(click.ClickException, match="a:raises: it raises, see above"):
        made_by(raises, "a:raises")
    assert capsys.readouterr().err.endswith("RuntimeError: no database\n")
    assert made_by(lambda: 5, "a:five") == 5
