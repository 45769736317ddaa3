"""``pyglyn groups``, ``tap`` and ``publish`` against real nodes."""

from __future__ import annotations

import json
import re
import signal

import pytest

from pyglyn.etf import Atom
from pyglyn.groups import pg, syn
from pyglyn.node import Node, Process
from pyglyn.testing import eventually
from tests.cli.test_cli import pyglyn, run
from tests.node.conftest import unique_name


async def waiting(me: Process) -> None:
    await me.receive(lambda m: m is Atom("stop"))


async def test_groups_of_a_beam_node(beam):
    await beam.eval(
        """{ok, P} = pg:start(pg), unlink(P), {ok, Q} = pg:start(orders), unlink(Q),
           W = spawn(fun() -> receive stop -> ok end end), pg:join(orders, <<"new">>, W), pg:join({a, 1}, W)"""
    )
    status, output = await run("groups", beam.name, "--cookie", beam.cookie)
    assert status == 0, output
    for expected in ("pg orders", '<<"new">>', "pg pg", "{a,1}", beam.name):
        assert expected in output


async def test_a_beam_node_without_scopes(beam):
    status, output = await run("groups", beam.name, "--cookie", beam.cookie)
    assert (status, output) == (0, f"no scopes on {beam.name}\n")


async def test_groups_of_a_python_node(epmd):
    async with Node(unique_name(), cookie="c") as node:
        status, output = await run("groups", node.name, "--cookie", "c")
        assert (status, "".join(output.splitlines())) == (0, f"no scopes on {node.name}")
        pid = node.spawn(waiting)
        await pg.join(node, "workers", pid)
        await syn.join(node, "example", "inventory", pid, (Atom("role"), b"main"))
        await syn.register(node, "example", "pricing", pid)
        status, output = await run("groups", node.name, "--cookie", "c")
    assert status == 0, output
    for expected in ("pg pg", '<<"workers">>', "syn groups example", '<<"inventory">>', '{role,<<"main">>}',
                     "syn registry example", '<<"pricing">>'):  # fmt: skip
        assert expected in output


async def test_groups_of_several_nodes_are_one_and_say_who_does_not_know_whom(beam):
    await beam.eval("{ok, P} = pg:start(orders), unlink(P), pg:join(orders, beams, P)")
    async with Node(unique_name(), cookie=beam.cookie) as node:
        pid = node.spawn(waiting)
        await pg.join(node, "till", pid, scope="orders")
        names = (node.name, beam.name)
        status, output = await run("groups", *names, "--cookie", beam.cookie)
        assert status == 0, output
        assert output.count("pg orders") == 1
        for here, there in (names, reversed(names)):
            assert f" on {here}  not known on {there}\n" in output
        await node.connect(beam.name)

        async def agreed() -> bool:
            _, output = await run("groups", *names, "--cookie", beam.cookie, "--json")
            [scope] = json.loads(output)
            members = [member for group in scope["groups"] for member in group["members"]]
            assert scope["nodes"] == sorted(names)
            return len(members) == 2 and not any(member["missing"] for member in members)

        await eventually(agreed, 60)


async def test_groups_keep_a_line_for_each_member_and_show_terms_as_they_are(epmd):
    async with Node(unique_name(), cookie="c") as node:
        meta = [Atom("red"), b"x" * 200]
        pid = node.spawn(waiting)
        await syn.join(node, "example", [Atom("bold"), Atom("b")], pid, meta)
        status, output = await run("groups", node.name, "--cookie", "c", env={"COLUMNS": "40"})
    assert status == 0, output
    lines = output.splitlines()
    assert "├── [bold,b]" in lines or "└── [bold,b]" in lines
    [member] = [line for line in lines if f" on {node.name}" in line]
    assert member.endswith(f'  [red,<<"{"x" * 200}">>]')


@pytest.mark.parametrize("json_lines", [False, True])
async def test_what_is_published_shows_in_a_tap(epmd, json_lines):
    async with Node(unique_name(), cookie="c") as node:
        syn.start(node, "example")
        group = ("--scope", "example", "--group", "inventory", "--cookie", "c")
        async with pyglyn("tap", node.name, *group, *(["--json"] if json_lines else [])) as tap:
            await tap.says("listening")
            await eventually(lambda: syn.member_count(node, "example", "inventory"))
            status, output = await run("publish", node.name, *group, '{order_confirmed, <<"o1">>}')
            assert (status, output) == (0, "sent to 1\n")
            if json_lines:
                line = (await tap.says(r'\["inventory".*')).group()
                assert json.loads(line) == ["inventory", [{"atom": "order_confirmed"}, "o1"]]
            else:
                await tap.says(re.escape('{<<"inventory">>,{order_confirmed,<<"o1">>}}'))
            tap.process.send_signal(signal.SIGINT)
            assert await tap.ends() == 0
            assert tap.output.splitlines()[0] == f"listening to inventory in scope example of {node.name}"


async def test_a_tap_ends_with_the_node_it_looks_at_and_with_no_other(epmd):
    async with Node(unique_name(), cookie="c") as node:
        syn.start(node, "example")
        group = ("--scope", "example", "--group", "inventory", "--cookie", "c")
        async with Node(unique_name(), cookie="c") as other:
            await node.connect(other.name)
            async with pyglyn("tap", node.name, *group, "--log-level", "info") as tap:
                await tap.says("listening")
                await other.stop()
                await tap.says(f"{other.name} is down")
                assert (await run("publish", node.name, *group, "hello"))[1] == "sent to 1\n"
                await tap.says("hello")
                await node.stop()
                assert await tap.ends() == 1
                assert f"pyglyn: the connection to {node.name} is lost" in tap.output


async def test_publishing_where_nobody_runs_the_scope_says_so(beam):
    status, output = await run(
        "publish", beam.name, "--scope", "nothing", "--group", "g", "hello", "--cookie", beam.cookie
    )
    assert status == 1
    assert "does not run the syn scope nothing" in " ".join(output.split())


async def test_groups_of_a_beam_node_with_syn(syn_beam):
    await syn_beam.eval(
        """W = spawn(fun() -> receive stop -> ok end end), ok = syn:join(example, <<"inventory">>, W, {role, x}),
           ok = syn:register(example, <<"pricing">>, W)"""
    )
    status, output = await run("groups", syn_beam.name, "--cookie", syn_beam.cookie)
    assert status == 0, output
    for expected in (
        "syn groups example",
        '<<"inventory">>',
        "{role,x}",
        "syn registry example",
        '<<"pricing">>',
    ):
        assert expected in output


async def test_a_tap_hears_what_a_beam_node_with_syn_publishes(syn_beam):
    group = ("--scope", "example", "--group", "inventory", "--cookie", syn_beam.cookie)
    async with pyglyn("tap", syn_beam.name, *group) as tap:
        await tap.says("listening")
        await eventually(lambda: syn_beam.eval('syn:member_count(example, <<"inventory">>) =:= 1'))
        status, output = await run("publish", syn_beam.name, *group, "--bare", '{order_confirmed, <<"o1">>}')
        assert (status, output) == (0, "sent to 1\n")
        await tap.says(re.escape('{order_confirmed,<<"o1">>}'))
        syn_beam.kill()
        assert await tap.ends() == 1
        assert "lost" in tap.output
