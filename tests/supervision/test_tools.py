"""What the BEAM's tools ask of a node: the same shapes as from a BEAM, and the truth about a tree."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio

from pyglyn import Atom, Pid
from pyglyn.node import Settings
from pyglyn.testing import Beam, eventually, require
from tests.supervision import live_dashboard
from tests.supervision.asking import Asked, asked_by
from tests.supervision.conftest import running

RUNTIME_TOOLS = sorted(Path("/usr/lib/erlang/lib").glob("runtime_tools-*/ebin"))
DASHBOARD = "'Elixir.Phoenix.LiveDashboard.SystemInfo'"

SHAPES = """
Shape = fun S(T) when is_boolean(T) -> boolean; S(T) when is_atom(T) -> atom; S(T) when is_integer(T) -> integer;
    S(T) when is_pid(T) -> pid; S(T) when is_port(T) -> port; S(T) when is_binary(T) -> binary;
    S(T) when is_map(T) -> maps:map(fun(_, V) -> S(V) end, T);
    S([{K, _} | _] = L) when is_atom(K) -> [{I, case I of alloc_info -> list; _ -> S(V) end} || {I, V} <- L];
    S([H | _]) when is_map(H); is_tuple(H) -> [S(H)]; S(L) when is_list(L) -> list;
    S(T) when is_tuple(T) -> list_to_tuple([S(E) || E <- tuple_to_list(T)]) end,
"""

SYSTEM_ITEMS = (
    "logical_processors logical_processors_online logical_processors_available schedulers schedulers_online "
    "multi_scheduling otp_release version system_architecture system_version kernel_poll smp_support threads "
    "thread_pool_size wordsize process_count process_limit port_count port_limit atom_count atom_limit ets_count "
    "ets_limit dist_buf_busy_limit alloc_util_allocators dirty_cpu_schedulers dirty_io_schedulers start_time creation "
    "machine endian build_type time_correction time_warp_mode time_offset tolerant_timeofday schedulers_active "
    "scheduler_id message_queue_data os_system_time_source debug_compiled procs dist info"
)
STATISTICS = (
    "active_tasks active_tasks_all context_switches exact_reductions garbage_collection io reductions run_queue "
    "run_queue_lengths run_queue_lengths_all runtime scheduler_wall_time total_active_tasks total_active_tasks_all "
    "total_run_queue_lengths total_run_queue_lengths_all wall_clock"
)
CALLS = [
    *(f"erlang:system_info({item})" for item in SYSTEM_ITEMS.split()),
    "erlang:system_info({wordsize, internal})",
    *(f"erlang:statistics({item})" for item in STATISTICS.split()),
    "erlang:system_flag(microstate_accounting, true)",
    "erlang:memory()",
    "erlang:monotonic_time()",
    "erlang:monotonic_time(millisecond)",
    "erlang:system_time()",
    "erlang:time_offset()",
    "erlang:timestamp()",
    "erlang:convert_time_unit(90000000000, native, seconds)",
    "calendar:seconds_to_daystime(100000)",
    "erlang:registered()",
    "erlang:function_exported(observer_backend, get_port_list, 0)",
    "erlang:function_exported(rb, log_list, 7)",
    "code:ensure_loaded(observer_backend)",
    "code:ensure_loaded(no_such_module)",
    "code:is_loaded(no_such_module)",
    "ets:info(no_such_table)",
    "ets:info(no_such_table, size)",
    "observer_backend:vsn()",
    "observer_backend:sys_info()",
    "observer_backend:socket_info()",
    "application:which_applications()",
    "application:which_applications(1000)",
    "application:loaded_applications()",
    "application:get_key(no_such_application, vsn)",
    "application_controller:get_master(no_such_application)",
    "init:get_status()",
    "init:get_argument(home)",
    "init:get_argument(no_such_flag)",
    "net_kernel:get_net_ticktime()",
    "proc_lib:translate_initial_call(Own)",
    "erlang:port_info(Port)",
    "erlang:port_info(Port, name)",
    "erlang:port_info(Port, queue_size)",
]


async def _rpc(asked: Asked, module: str, function: str, *args: Any) -> Any:
    text = f"rpc:call(N, {module}, {function}, Args)"
    return await asked.beam.eval(text, N=Atom(asked.node.name), Args=list(args), timeout=60)


@pytest_asyncio.fixture
async def seen(asked: Asked) -> AsyncIterator[Asked]:
    """The BEAM has the modules that the tools call on a node."""
    require(RUNTIME_TOOLS, "OTP's runtime_tools are missing (Debian's erlang-runtime-tools)")
    await asked.beam.eval("code:add_pathz(P)", P=list(str(RUNTIME_TOOLS[0]).encode()))
    yield asked


async def test_answers_have_the_shapes_of_a_beam(seen: Asked) -> None:
    setup = """
        erlang:system_flag(scheduler_wall_time, true),
        {ok, L} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]), {ok, Mine} = inet:port(L),
        Theirs = hd([P || P <- rpc:call(N, erlang, ports, []),
                          rpc:call(N, erlang, port_info, [P, name]) =:= {name, "tcp_inet"}]), Mine,
    """
    calls = ", ".join(_quoted_call(call) for call in CALLS)
    text = (
        SHAPES
        + setup
        + f"""
        Calls = fun(Own, Port) -> [{calls}] end,
        [{{Shape(apply(M, F, A)), Shape(rpc:call(N, M, F, B))}}
         || {{{{M, F, A}}, {{M, F, B}}}} <- lists:zip(Calls(whereis(kernel_sup), L), Calls(Whose, Theirs))]
    """
    )
    pairs = await seen.beam.eval(text, N=Atom(seen.node.name), Whose=seen.whereis("a"), timeout=60)
    different = {
        call: (theirs, ours) for call, (theirs, ours) in zip(CALLS, pairs, strict=True) if theirs != ours
    }
    assert different == {}


def _quoted_call(call: str) -> str:
    module, _, rest = call.partition(":")
    function, _, arguments = rest.partition("(")
    return f"{{{module}, {function}, [{arguments[:-1]}]}}"


async def test_ports_are_described_as_observer_wants_it(seen: Asked) -> None:
    text = (
        SHAPES
        + """
        {ok, L} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]), {ok, Number} = inet:port(L),
        {ok, C} = gen_tcp:connect({127, 0, 0, 1}, Number, []),
        Inet = fun(Ports) ->
            [Found] = [proplists:delete(options, Shape(X)) || X <- Ports, lists:keyfind(port_id, 1, X) =:= {port_id, C}],
            Found end,
        Mine = Inet(observer_backend:get_port_list()),
        Theirs = [Shape(P) || P <- rpc:call(N, observer_backend, get_port_list, []),
                              {inet, I} <- P, lists:keymember(remote_address, 1, I)],
        [{Mine, T} || T <- Theirs]
        """
    )
    pairs = await seen.beam.eval(text, N=Atom(seen.node.name))
    assert pairs
    for mine, theirs in pairs:
        ((inet, about),) = mine[-1:]
        assert inet is Atom("inet")
        assert theirs[:-1] == mine[:-1]
        assert [key for key, _ in theirs[-1][1]] == [key for key, _ in about]
        assert dict(theirs[-1][1])[Atom("statistics")] == dict(about)[Atom("statistics")]


ETOP = """
    Pid = spawn_link(N, observer_backend, etop_collect, [self()]),
    receive {Pid, Info} -> Info after 20000 -> timeout end
"""


async def _processes(asked: Asked) -> dict[Any, Any]:
    """By pid, what etop is told."""
    info = await asked.beam.eval(ETOP, N=Atom(asked.node.name), timeout=60)
    assert info[0] is Atom("etop_info")
    assert info[2] == len(info[-1])
    return {entry[1]: entry for entry in info[-1]}


async def test_etop_and_observer_see_a_full_mailbox_a_death_and_a_stuck_worker(seen: Asked) -> None:
    beam, node = seen.beam, Atom(seen.node.name)
    text = (
        SHAPES + "erlang:system_flag(scheduler_wall_time, true)," + ETOP.replace("-> Info", "-> Shape(Info)")
    )
    theirs = await beam.eval(text, N=Atom(beam.name), timeout=60)
    ours = await beam.eval(text, N=node, timeout=60)
    assert ours[:-1] == theirs[:-1]
    assert [part for at, part in enumerate(ours[-1][0]) if at != 4] == [
        part for at, part in enumerate(theirs[-1][0]) if at != 4
    ]  # a name, or an initial call
    dying = seen.whereis("crowd")
    await beam.eval(
        "[{crowd, N} ! {order, I} || I <- lists:seq(1, 10000)], ok", N=node
    )  # its body takes none of them
    await eventually(lambda: _waits(seen, dying, 10_000), 30)
    for process in ("a", "light", "beside", "rex"):
        assert (await _processes(seen))[seen.whereis(process)][4] is Atom(process)
    await beam.eval("exit(P, kill)", P=dying)
    await eventually(lambda: seen.node.whereis("crowd") not in (None, dying), 30)
    assert dying not in await _processes(seen)
    seen.node.cast("a", Atom("busy"))
    stuck = seen.whereis("a")
    found = await _processes(seen)
    assert found[stuck][2] > 1 << 20
    assert {seen.whereis(name) for name in ("a", "light", "top", "crowd", "rex")} <= set(found)
    chunks = """
        Pid = spawn_link(N, observer_backend, procs_info, [self()]), receive {procs_info, Pid, L} -> length(L) end
    """
    assert await beam.eval(chunks, N=node, timeout=60) in range(len(found) - 2, len(found) + 3)


async def _waits(asked: Asked, pid: Pid, count: int) -> bool:
    return bool((await _processes(asked))[pid][-1] == count)


async def test_load_charts_get_figures_until_they_say_enough(seen: Asked) -> None:
    text = (
        SHAPES
        + """
        process_flag(trap_exit, true),
        Pid = spawn_link(N, observer_backend, fetch_stats, [self(), 20]),
        Got = [receive {stats, _, _, _, _} = S -> Shape(S) after 10000 -> none end || _ <- [1, 2]],
        Pid ! exit, receive {'EXIT', Pid, Reason} -> {Reason, Got} end
        """
    )
    assert await seen.beam.eval(text, N=Atom(seen.node.name)) == await seen.beam.eval(
        text, N=Atom(seen.beam.name)
    )


async def test_charts_that_are_watched_hold_up_no_other_question(seen: Asked) -> None:
    """Observer asks for the number of schedulers before it draws the first figures."""
    text = """
        Pid = spawn_link(N, observer_backend, fetch_stats, [self(), 20]),
        receive {stats, _, _, _, _} -> ok end,
        Schedulers = rpc:call(N, erlang, system_info, [dirty_cpu_schedulers], 20000),
        unlink(Pid), Pid ! exit, Schedulers
    """
    assert await seen.beam.eval(text, N=Atom(seen.node.name), timeout=60) == 0


async def test_a_process_that_does_not_answer_holds_up_no_other_question(asked: Asked) -> None:
    asked.node.cast("a", Atom("busy"))
    text = "spawn(fun() -> rpc:call(N, sys, get_status, [P, 600000]) end)"
    await asked.beam.eval(text, N=Atom(asked.node.name), P=asked.whereis("a"))
    running = asked.node.hub.runtime.processes
    await eventually(lambda: any(process.label == "sys:get_status" for process in running.values()))
    text = "rpc:call(N, erlang, node, [], 20000)"
    assert await asked.beam.eval(text, N=Atom(asked.node.name), timeout=60) is Atom(asked.node.name)


APPMON = """
    process_flag(trap_exit, true),
    {ok, Pid} = appmon_info:start_link(N, self(), []),
    {ok, Pid} = appmon_info:start_link(N, self(), []),
    appmon_info:app_ctrl(Pid, N, true, [{timeout, 50}]),
    Apps = receive {delivery, Pid, app_ctrl, N, A} -> A after 10000 -> none end,
    appmon_info:app(Pid, App, true, [{timeout, 50}]),
    Tree = receive {delivery, Pid, app, App, T} -> T after 10000 -> none end,
"""


async def test_the_applications_tab_draws_the_supervision_tree_with_its_os_processes(seen: Asked) -> None:
    node = Atom(seen.node.name)
    apps, tree = await seen.beam.eval(APPMON + "exit(Pid, normal), {Apps, Tree}", N=node, App=Atom("top"))
    assert [(name, triple[0]) for _, name, triple in apps] == [(Atom(n), Atom(n)) for n in ("top", "pyglyn")]
    assert apps[0][0] == seen.whereis("top")
    root, processes, links, _ = tree
    labels = {pid: bytes(label).decode() for pid, label in processes}
    os_pids = {name: await seen.node.call(seen.whereis(name), Atom("os_pid")) for name in ("a", "light")}
    assert labels[seen.whereis("a")] == f"a (OS process {os_pids['a']})"
    assert labels[seen.whereis("light")] == "light"
    assert labels[seen.whereis("beside")] == "beside"
    assert running(int(next(label for label in labels.values() if "slow" in label).split()[-1][:-1]))
    below = [(bytes(parent).decode(), bytes(child).decode()) for parent, child in links]
    assert (labels[seen.whereis("crowd")], "beside") in below
    assert {child for parent, child in below if parent == bytes(root).decode()} == {
        label for pid, label in labels.items() if pid not in (seen.whereis("top"), seen.whereis("beside"))
    }
    await eventually(lambda: seen.node.whereis("appmon_info") is None)  # its only client has ended


async def test_the_applications_tab_takes_what_no_observer_asks(seen: Asked) -> None:
    """Options of any shape, times that are none, that it is time now; and too much."""
    options = (
        "[{timeout}], [{timeout, -1}], [{timeout, 1 bsl 80}], [{[], 1, 2}, x], [{#{}, x}], [{timeout, true}]"
    )
    text = f"""
        process_flag(trap_exit, true),
        {{ok, Pid}} = appmon_info:start_link(N, self(), []),
        [gen_server:cast(Pid, {{self(), C, X, true, O}})
         || C <- [app, app_ctrl, load, pinfo, other], X <- [N, self(), [a | b], #{{}}], O <- [{options}]],
        Key = term_to_binary({{app_ctrl, N, self()}}, [{{minor_version, 2}}]),
        [Pid ! {{do_it, Key}} || _ <- lists:seq(1, 100)],
        [gen_server:cast(Pid, {{self(), other, X, true, []}}) || X <- lists:seq(1, 2000)],
        {{gen_server:call(Pid, x, 60000), rpc:call(N, erlang, process_info, [Pid, registered_name])}}"""
    found = await seen.beam.eval(text, N=Atom(seen.node.name), timeout=120)
    assert found == (Atom("ok"), (Atom("registered_name"), Atom("appmon_info")))


async def test_a_tree_that_changes_is_delivered_again(seen: Asked) -> None:
    text = (
        APPMON
        + """
        exit(rpc:call(N, erlang, whereis, [a]), kill),
        New = receive {delivery, Pid, app, App, T2} -> T2 after 20000 -> none end,
        {element(2, Tree), element(2, New)}
        """
    )
    before, after = await seen.beam.eval(text, N=Atom(seen.node.name), App=Atom("top"), timeout=60)
    assert before != after


async def test_every_tool_has_each_worker_asked_once_for_all_processes(seen: Asked) -> None:
    questions: list[Any] = []
    for link in seen.node.workers.links.values():
        link.protocol.request = _counting(link.protocol.request, questions)  # type: ignore[method-assign]
    await _processes(seen)
    workers = len(seen.node.workers.links)
    assert [q for q in questions if isinstance(q, tuple)] == [
        (Atom("process_infos"), q[1]) for q in questions if isinstance(q, tuple)
    ]
    assert len([q for q in questions if isinstance(q, tuple)]) == workers
    assert not seen.node.workers._asked


def _counting(request: Any, questions: list[Any]) -> Any:
    def counted(term: Any) -> None:
        if term[0] is Atom("info"):
            questions.append(term[2])
        request(term)

    return counted


async def test_live_dashboard_is_answered_as_by_its_own_module(asked: Asked) -> None:
    a = asked.whereis("a")
    assert (await _rpc(asked, "code", "is_loaded", Atom(DASHBOARD[1:-1])))[0] is Atom("file")
    capabilities = await _rpc(asked, DASHBOARD, "capabilities_callback", [(Atom("process"), Atom("a"))])
    assert capabilities[Atom("dashboard_running?")] is True  # or it would send its module
    assert capabilities[Atom("processes")] == [Atom("a")]
    info = await _rpc(asked, DASHBOARD, "info_callback", [b"HOME"], Atom("top"))
    assert {key.name for key in info} == {"system_info", "system_limits", "system_usage", "environment"}
    assert info[Atom("environment")] == [(b"HOME", None)]
    by = (None, Atom("message_queue_len"), Atom("desc"))
    await asked.beam.eval("[{crowd, N} ! I || I <- [1, 2, 3]], ok", N=Atom(asked.node.name))

    async def first() -> Any:
        page, count, following = await _rpc(asked, DASHBOARD, "processes_callback", *by, 1, None)
        entry = dict(page[0])
        assert count >= len(following) > 6
        return entry if entry[Atom("message_queue_len")] == 3 else None

    entry = await eventually(first)
    assert entry[Atom("pid")] == asked.whereis("crowd")
    assert entry[Atom("name_or_initial_call")] == b":crowd"
    page, count, _ = await _rpc(
        asked, DASHBOARD, "processes_callback", b"beside", Atom("memory"), Atom("asc"), 9, {}
    )
    assert (len(page), count) == (1, 1)
    ok, about = await _rpc(asked, DASHBOARD, "process_info_callback", a)
    values = dict(about)
    assert ok is Atom("ok")
    assert values[Atom("links")][0][Atom("name_or_initial_call")] == b":top"
    assert values[Atom("ancestors")][0][Atom("pid")] == asked.whereis("top")
    apps, _ = await _rpc(asked, DASHBOARD, "applications_info_callback", None, Atom("name"), Atom("asc"), 9)
    assert [dict(app)[Atom("name")] for app in apps] == [Atom(n) for n in ("pyglyn", "python", "top")]
    (kind, _, _), [((supervisor, top, _), children)] = await _rpc(
        asked, DASHBOARD, "app_tree_callback", Atom("top")
    )
    assert (kind, supervisor, top) == (Atom("master"), Atom("supervisor"), asked.whereis("top"))
    assert {asked.whereis("a"), asked.whereis("light")} < {child[0][1] for child in children}
    sockets, count = await _rpc(
        asked, DASHBOARD, "sockets_callback", None, Atom("send_oct"), Atom("desc"), 50
    )
    assert count == len(sockets) > 1
    port = dict(sockets[0])[Atom("port")]
    assert (await _rpc(asked, DASHBOARD, "socket_info_callback", port))[0] is Atom("ok")
    allocators, _ = await _rpc(asked, DASHBOARD, "memory_allocators_callback", None)
    assert [entry[Atom("name")].name for entry in allocators] == ["total", "hub", "workers"]
    assert await _rpc(asked, DASHBOARD, "ets_callback", None, Atom("size"), Atom("asc"), 50) == ([], 0)


async def test_live_dashboard_gets_the_shapes_that_its_own_module_gives(asked: Asked) -> None:
    ours = await live_dashboard.shapes(asked.beam, asked.node.name, "top", "a")
    assert live_dashboard.differences(live_dashboard.recorded(), ours) == {}


async def test_microstate_accounting_is_told_since_it_was_reset(asked: Asked) -> None:
    async def total() -> int:
        schedulers = await asked.erlang("statistics", Atom("microstate_accounting"))
        return sum(sum(scheduler[Atom("counters")].values()) for scheduler in schedulers)

    before = await total()
    for flag in (True, Atom("reset")):
        assert await asked.erlang("system_flag", Atom("microstate_accounting"), flag) is True
    assert 0 < await total() < before


async def test_sys_looks_into_servers_and_says_when_one_does_not_answer(asked: Asked) -> None:
    a = asked.whereis("a")
    status = await _rpc(asked, "sys", "get_status", a, 5000)
    assert status[:2] == (Atom("status"), a)
    assert await _rpc(asked, "sys", "get_state", Atom("light")) == {Atom("count"): 0, Atom("grabbed"): []}
    asked.node.cast("a", Atom("busy"))
    match await _rpc(asked, "sys", "get_status", a, 50):
        case (Atom("badrpc"), (Atom("EXIT"), (Atom("timeout"), (Atom("sys"), Atom("get_status"), _)))):
            pass
        case other:
            raise AssertionError(other)


CHANGES = [
    ("erlang", "exit", "[P, kill]"),
    ("sys", "suspend", "[P]"),
    ("sys", "resume", "[P]"),
    ("init", "stop", "[]"),
]


async def test_what_changes_something_is_refused_in_words(asked: Asked) -> None:
    for module, function, args in [*CHANGES, ("code", "load_binary", "[recon, [], <<>>]")]:
        text = f"rpc:call(N, {module}, {function}, {args})"
        answer = await asked.beam.eval(text, N=Atom(asked.node.name), P=asked.whereis("a"))
        assert answer[1][1][0][0] is Atom("notsup"), answer
        assert isinstance(answer[1][1][0][1], bytes)
    assert await asked.erlang("is_process_alive", asked.whereis("a")) is True


async def test_a_node_that_may_be_changed_does_what_it_is_told(shared_beam: Beam) -> None:
    async with asked_by(shared_beam, Settings(observe="full")) as asked:
        a = asked.whereis("a")
        assert await _rpc(asked, "sys", "suspend", a) is Atom("ok")
        status = await _rpc(asked, "sys", "get_status", a)
        assert status[3][1] is Atom("suspended")
        assert await _rpc(asked, "sys", "resume", a) is Atom("ok")
        assert await asked.erlang("exit", a, Atom("kill")) is True
        await eventually(lambda: asked.node.whereis("a") not in (None, a), 30)
        assert await _rpc(asked, "init", "stop") is Atom("ok")
        await eventually(asked.node.hub.stopping.is_set)


async def test_a_node_that_is_not_to_be_observed_has_none_of_it(shared_beam: Beam) -> None:
    async with asked_by(shared_beam, Settings(observe="off")) as asked:
        for module, function in (("erlang", "processes"), ("observer_backend", "vsn"), ("erlang", "memory")):
            answer = await _rpc(asked, module, function)
            assert answer[1][1][0] is Atom("undef"), answer
        assert await asked.erlang("node") is Atom(asked.node.name)
        assert await asked.erlang("is_process_alive", asked.whereis("a")) is True  # its supervisors ask it


async def test_names_in_global_are_found_by_asking_a_peer(asked: Asked) -> None:
    await asked.beam.eval("yes = global:register_name({till, 1}, whereis(kernel_sup)), ok")
    found = await asked.node.whereis_global(asked.beam.name, (Atom("till"), 1))
    assert found == await asked.beam.eval("whereis(kernel_sup)")
    assert await asked.node.whereis_global(asked.beam.name, "nobody") is None


BAD = (
    "erlang:system_info(nonsense)",
    "erlang:statistics(nonsense)",
    "erlang:convert_time_unit(1, native, fortnight)",
    "erlang:port_info(self())",
    "erlang:system_flag(schedulers_online, 1)",
    "calendar:seconds_to_daystime(x)",
)


async def test_bad_arguments_are_badarg(asked: Asked) -> None:
    for bad in BAD:
        call = _quoted_call(bad)
        answer = await asked.beam.eval(f"{{M, F, A}} = {call}, rpc:call(N, M, F, A)", N=Atom(asked.node.name))
        assert answer[1][1][0] is Atom("badarg"), answer
