"""Real nodes under test: evaluation over stdio, OS signals, several nodes, helper modules."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from pyglyn.etf import Atom, Pid
from pyglyn.testing import Beam, BeamDown, BeamError, Beams, eventually, find_otps, no_leaks
from pyglyn.testing import loading as module_loading

INTEROP = Path(__file__).parents[2] / "interop" / "erlang"


async def test_a_node_runs_the_release_its_test_is_named_after(
    beam: Beam, request: pytest.FixtureRequest
) -> None:
    release = await beam.eval("list_to_integer(erlang:system_info(otp_release))")
    assert release == beam.otp
    assert f"otp{release}" in request.node.name
    assert await beam.eval("node()") == Atom(beam.name)
    assert await beam.eval("list_to_integer(os:getpid())") == beam.os_pid
    assert await beam.eval("erlang:get_cookie()") == Atom(beam.cookie)


async def test_expressions_see_the_values_given_for_their_variables(shared_beam: Beam) -> None:
    term = {Atom("k"): [1, 2.5, b"x", (True, None)]}
    assert await shared_beam.eval("{Given, length(List)}.", Given=term, List=[1, 2]) == (term, 2)
    assert await shared_beam.eval('<<"ł"/utf8>>') == "ł".encode()
    assert isinstance(await shared_beam.eval("self()"), Pid)


async def test_terms_as_bytes_pass_without_the_codec(shared_beam: Beam) -> None:
    assert await shared_beam.eval_bytes("{X, X}", X=b"\x83a\x05") == b"\x83h\x02a\x05a\x05"


@pytest.mark.parametrize(("text", "kind", "reason"), [
    ("error(boom)", "error", Atom("boom")),
    ("exit({shutdown, 1})", "exit", (Atom("shutdown"), 1)),
    ("throw(ball)", "throw", Atom("ball")),
    ("1 / 0", "error", Atom("badarith")),
    ("exit(self(), kill)", "exit", Atom("killed")),
])  # fmt: skip
async def test_what_an_evaluation_raises_is_raised_here(
    shared_beam: Beam, text: str, kind: str, reason: object
) -> None:
    with pytest.raises(BeamError) as caught:
        await shared_beam.eval(text)
    assert (caught.value.kind, caught.value.reason) == (kind, reason)


@pytest.mark.parametrize("text", ["foo(", "<<", "'unfinished", "1 2"])
async def test_text_that_does_not_parse_is_a_syntax_error(shared_beam: Beam, text: str) -> None:
    with pytest.raises(BeamError) as caught:
        await shared_beam.eval(text)
    assert caught.value.kind == "error"
    assert caught.value.reason[0] == Atom("syntax")


async def test_evaluations_run_at_the_same_time(shared_beam: Beam) -> None:
    first = asyncio.ensure_future(
        shared_beam.eval("register(meeting, self()), receive {go, From} -> From ! N end", N=1)
    )
    await eventually(lambda: shared_beam.eval("whereis(meeting) =/= undefined"))
    assert await shared_beam.eval("meeting ! {go, self()}, receive N -> N end") == 1
    assert await first == 1
    answers = await asyncio.gather(*(shared_beam.eval("N * N", N=n) for n in range(200)))
    assert answers == [n * n for n in range(200)]


async def test_an_evaluation_out_of_time_is_killed_on_the_node(
    shared_beam: Beam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYGLYN_TEST_PATIENCE", "1")
    with pytest.raises(TimeoutError, match=r"no result in 0\.1 s: register"):
        await shared_beam.eval("register(stuck, self()), receive never -> ok end", timeout=0.1)
    await eventually(lambda: shared_beam.eval("whereis(stuck) =:= undefined"))


async def test_a_cancelled_evaluation_is_killed_on_the_node(shared_beam: Beam) -> None:
    task = asyncio.ensure_future(shared_beam.eval("register(forgotten, self()), receive never -> ok end"))
    await eventually(lambda: shared_beam.eval("whereis(forgotten) =/= undefined"))
    task.cancel()
    await eventually(lambda: shared_beam.eval("whereis(forgotten) =:= undefined"))


async def test_large_terms_pass_both_ways(shared_beam: Beam) -> None:
    data = os.urandom(16 << 20)
    assert await shared_beam.eval("{byte_size(Data), Data}", Data=data, timeout=30) == (len(data), data)


async def test_what_the_node_prints_goes_to_its_log_and_disturbs_nothing(beam: Beam) -> None:
    text = 'io:format("~s~n", [lists:duplicate(100000, $x)]), io:format("no newline"), done'
    assert await beam.eval(text) == Atom("done")
    await eventually(lambda: "no newline" in beam.log())


async def test_a_killed_node_is_gone_and_says_so(beam: Beam) -> None:
    waiting = asyncio.ensure_future(beam.eval("receive never -> ok end"))
    await eventually(lambda: beam.eval("true"))
    beam.kill()
    assert not psutil.pid_exists(beam.os_pid)
    assert not beam.alive
    with pytest.raises(BeamDown):
        await waiting
    with pytest.raises(BeamDown):
        await beam.eval("1")
    beam.kill()
    await beam.stop()


async def test_a_suspended_node_is_silent_until_it_is_resumed(beam: Beam) -> None:
    beam.suspend()
    await eventually(lambda: psutil.Process(beam.os_pid).status() == psutil.STATUS_STOPPED)
    answer = asyncio.ensure_future(beam.eval("awake"))
    done, _ = await asyncio.wait([answer], timeout=0.3)
    assert not done
    beam.resume()
    assert await answer == Atom("awake")


async def test_a_suspended_node_can_be_stopped(beam: Beam) -> None:
    beam.suspend()
    await beam.stop()
    assert not psutil.pid_exists(beam.os_pid)


async def test_the_distribution_is_cut_and_the_node_still_answers(beams: Beams) -> None:
    first, second = await asyncio.gather(beams.start("first"), beams.start("second"))
    assert await first.eval("net_adm:ping(N)", N=Atom(second.name)) == Atom("pong")
    assert await second.eval("nodes()") == [Atom(first.name)]
    assert await first.disconnect(second.name)
    await eventually(lambda: second.eval("nodes() =:= []"))
    assert not await first.disconnect("nobody@localhost")


async def test_nodes_of_every_release_found_see_each_other(beams: Beams) -> None:
    nodes = await asyncio.gather(
        *(beams.start(f"release{otp.release}", otp=otp.release) for otp in find_otps())
    )
    for node in nodes[1:]:
        assert await nodes[0].eval("net_adm:ping(N)", N=Atom(node.name)) == Atom("pong")
    assert [node.otp for node in nodes] == [otp.release for otp in find_otps()]


async def test_a_hidden_node_is_listed_as_hidden(beam: Beam, beams: Beams) -> None:
    hidden = await beams.start("shy", hidden=True)
    assert await beam.eval("net_adm:ping(N)", N=Atom(hidden.name)) == Atom("pong")
    assert await beam.eval("{nodes(), nodes(hidden)}") == ([], [Atom(hidden.name)])


async def test_nodes_with_different_cookies_stay_apart(beam: Beam, beams: Beams) -> None:
    stranger = await beams.start(cookie="another")
    assert await beam.eval("net_adm:ping(N)", N=Atom(stranger.name)) == Atom("pang")


async def test_a_host_with_dots_makes_a_long_name(beams: Beams) -> None:
    node = await beams.start(
        "far@127.0.0.1", env={"PYGLYN_EXAMPLE": "seen"}, args=["-kernel", "net_ticktime", "7"]
    )
    assert await node.eval("{node(), net_kernel:longnames()}") == (Atom("far@127.0.0.1"), True)
    assert await node.eval('{os:getenv("PYGLYN_EXAMPLE"), net_kernel:get_net_ticktime()}') == (
        list(b"seen"),
        7,
    )


async def test_a_node_that_cannot_start_says_what_it_printed(beam: Beam, beams: Beams) -> None:
    with pytest.raises(BeamDown, match="did not start") as caught:
        await beams.start(beam.name)
    assert beam.name.partition("@")[0] in str(caught.value)
    with pytest.raises(LookupError, match="OTP 3 is not here"):
        await beams.start(otp=3)


async def test_a_node_leaves_nothing_behind(beams: Beams) -> None:
    async with no_leaks():
        node = await beams.start()
        await node.stop()
    assert not psutil.pid_exists(node.os_pid)


@pytest.mark.parametrize("how", ["compiled", "interpreted"])
async def test_a_helper_module_works_with_a_compiler_and_without(
    beam: Beam, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "interpreted":
        monkeypatch.setattr(module_loading, "find_compiler", lambda release: None)
    elif module_loading.find_compiler(beam.otp) is None:
        pytest.skip("no Erlang compiler (the wheel has none)")
    await beam.load(INTEROP / "pyglyn_counter.erl")
    assert await beam.eval("pyglyn_counter:doubled([1, 2])") == [2, 4]
    assert await beam.eval("pyglyn_counter:count_down(100_000)") == Atom("done")
    assert await beam.eval("pyglyn_counter:caught(fun() -> 1 / 0 end)") == (Atom("error"), Atom("badarith"))
    assert await beam.eval("pyglyn_counter:many(1, 2, 3, 4, 5, 6, 7, 8, 9)") == list(range(1, 10))
    assert await beam.eval("Pid = pyglyn_counter:spawned(self()), receive {from, Pid} -> ok end") == Atom(
        "ok"
    )
    with pytest.raises(BeamError, match="undef"):
        await beam.eval("pyglyn_counter:no_such_function(1)")
    told = await beam.eval("""
        {ok, Pid} = pyglyn_counter:start(self()),
        gen_server:cast(Pid, {add, 3}),
        10 = gen_server:call(pyglyn_counter, get),
        Pid ! hello, receive {heard, hello} -> ok end,
        {stop, stopped} = {stop, gen_server:call(Pid, stop)},
        receive {terminated, _, _} = Told -> Told end
    """)
    assert told == (Atom("terminated"), Atom("normal"), 10)


async def test_a_helper_module_that_does_not_compile_says_where(beam: Beam, tmp_path: Path) -> None:
    source = tmp_path / "broken.erl"
    source.write_text("-module(broken).\n-export([f/0]).\nf() -> oops(.\n")
    with pytest.raises((SyntaxError, BeamError), match="syntax error before"):
        await beam.load(source)


ABANDON = """
import json, os, sys
from pyglyn.testing import Beams, PrivateEpmd, find_otps
epmd = PrivateEpmd()
epmd.start()
beam = Beams(epmd, find_otps()[-1]).start_blocking()
print(json.dumps([beam.os_pid, epmd.port]), flush=True)
os.kill(os.getpid(), 9)
"""


async def test_nodes_and_epmd_end_when_the_test_process_is_killed(beam: Beam) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ABANDON, stdout=subprocess.PIPE)
    printed, _ = await process.communicate()
    os_pid, port = json.loads(printed)

    def gone() -> bool:
        # A zombie has ended too: where an earlier test made this process a subreaper, it collects late.
        running = [
            p for p in psutil.process_iter(["pid", "cmdline", "status"]) if p.info["status"] != "zombie"
        ]
        epmd = [p for p in running if "-port" in (p.info["cmdline"] or ()) and str(port) in p.info["cmdline"]]
        return os_pid not in [p.info["pid"] for p in running] and not epmd

    await eventually(gone, timeout=10)
