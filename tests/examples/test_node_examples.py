"""The programs of ``examples/`` that need no more than a node do what their first lines say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from pyglyn.etf import Atom
from pyglyn.node import Node
from tests.node.conftest import unique_name

ROOT = Path(__file__).parents[2]


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_echo_shows_its_answer_for_the_line_that_is_pasted_into_erl(beam):
    example = load("echo")
    [pasted] = re.findall(r"^1> (\{echo, .*)\.$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert f"{pasted}." in example.__doc__
    async with Node(unique_name(), cookie=beam.cookie) as node:
        pid = node.spawn(example.echo, name="echo")
        assert await beam.eval(pasted.replace("inventory@localhost", node.name)) == (Atom("pong"), pid)


async def test_stock(beam):
    example = load("stock")
    async with Node(unique_name(), cookie=beam.cookie) as node:
        await example.app(node)
        where = Atom(node.name)
        take = "gen_server:call({stock, N}, {take, Product, 2})"
        assert await beam.eval(take, N=where, Product=b"laptop") == (Atom("ok"), 8)
        assert await beam.eval(take, N=where, Product=b"mouse") == (Atom("ok"), 0)
        assert await beam.eval('rpc:call(N, pricing, quote, [<<"laptop">>, 3])', N=where) == 2997.0
        assert await beam.eval('gen_server:call({stock, N}, {reset, #{<<"pen">> => 1}})', N=where) is Atom(
            "ok"
        )
        assert await beam.eval('gen_server:call({stock, N}, {get, <<"pen">>})', N=where) == 1


def test_the_first_program_of_the_readme_is_the_echo_example():
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    program = (ROOT / "examples" / "echo.py").read_text()
    body = program[program.index("async def echo") : program.index("async def main")]
    assert body.strip() in blocks[0]
