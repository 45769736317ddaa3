"""Scripts whose workers are spawned: every form of script, at every depth, with threads and without."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import zipapp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = '''
"""A script with workers of its own, which looks at its arguments when it is imported, as many do."""
import asyncio, multiprocessing, os, pickle, sys, threading
from pyglyn import Node
from pyglyn.supervision import Supervisor, start, supervisor, worker

NAME, SHAPE = sys.argv[1:]

class Thing:
    def __init__(self, number):
        self.number = number

def double(number):
    return 2 * number

def answer(me):
    """What of multiprocessing's works in a spawned child: a pool of its own, and pickling for others."""
    number = double(21)
    if not __file__.endswith("__main__.py"):  # which multiprocessing does not import
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            number = pool.apply(double, (21,))
    return number, pickle.dumps(Thing(7)), sys.argv

async def w(me):
    message = await me.receive()
    number, pickled, argv = await asyncio.to_thread(answer, me)
    me.send(message, (number, pickled, [word.encode() for word in argv]))
    await me.receive()

def blocking(me):
    message = me.receive()
    number, pickled, argv = answer(me)
    me.send(message, (number, pickled, [word.encode() for word in argv]))
    me.receive()

def below(how, target=w):
    return supervisor(Supervisor(start=how).add(worker(target, name="w")), name="inner")

SHAPES = {
    "threads": Supervisor().add(worker(w, name="w")),
    "nested": Supervisor(start="spawn").add(below("spawn")),
    "spawned in forked": Supervisor(start="fork").add(below("spawn")),
    "forked in spawned": Supervisor(start="spawn").add(below("fork")),
    "blocking": Supervisor(start="spawn").add(below("spawn", blocking)),
}

async def main():
    if SHAPE == "threads":
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    async with Node(NAME, cookie="c") as node, node.process() as me:
        await start(node, SHAPES[SHAPE])
        me.send("w", me.pid)
        number, pickled, argv = await me.receive(timeout=60)
        assert number == 42
        thing = pickle.loads(pickled)
        assert type(thing) is Thing and thing.number == 7
        assert [word.decode() for word in argv] == sys.argv
        print("all well", flush=True)

if __name__ == "__main__":
    asyncio.run(main())
'''

ROOT = Path(__file__).parents[2]


def run(command: list[str], shape: str, folder: Path, **options: Any) -> str:
    words = [*command, f"spawn_{secrets.token_hex(4)}@localhost", shape]
    paths = os.pathsep.join(map(str, (folder, ROOT)))
    done = subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
        **options,
    )
    return done.stdout + done.stderr


def as_file(folder: Path) -> list[str]:
    (folder / "script.py").write_text(SCRIPT)
    return [sys.executable, "script.py"]


def as_module(folder: Path) -> list[str]:
    (folder / "script.py").write_text(SCRIPT)
    return [sys.executable, "-m", "script"]


def as_package(folder: Path) -> list[str]:
    (folder / "package").mkdir()
    (folder / "package" / "__init__.py").touch()
    (folder / "package" / "__main__.py").write_text(SCRIPT)
    return [sys.executable, "-m", "package"]


def as_folder(folder: Path) -> list[str]:
    (folder / "app").mkdir()
    (folder / "app" / "__main__.py").write_text(SCRIPT)
    return [sys.executable, "app"]


def as_zip(folder: Path) -> list[str]:
    zipapp.create_archive(folder / as_folder(folder)[1], folder / "app.pyz")
    return [sys.executable, "app.pyz"]


@pytest.mark.parametrize(
    "shape",
    ["threads", "nested", "spawned in forked", "forked in spawned", "blocking"],
)
def test_a_script_spawns_workers_at_every_depth(epmd: object, tmp_path: Path, shape: str) -> None:
    text = run(as_file(tmp_path), shape, tmp_path)
    assert "all well" in text, text


@pytest.mark.parametrize("form", [as_module, as_package, as_folder, as_zip])
def test_every_form_of_script_spawns_workers(
    epmd: object, tmp_path: Path, form: Callable[[Path], list[str]]
) -> None:
    text = run(form(tmp_path), "nested", tmp_path)
    assert "all well" in text, text


def test_what_is_in_no_file_cannot_be_spawned_and_says_why(epmd: object, tmp_path: Path) -> None:
    text = run([sys.executable, "-"], "nested", tmp_path, input=SCRIPT)
    assert "fresh interpreter cannot import: put it into a module" in text, text
