%% Runs a supervision scenario in a real OTP supervisor and returns what happened, for comparison.
%%
%% A scenario is #{flags => sup_flags(), children => [child_spec()], steps => [Step]}. Every child starts by
%% {supervisor_oracle, start_child, [Behaviour]} with
%%
%%   Behaviour = #{id => term(),              % names the child in the trace
%%                 starts => [Start],         % what its 1st, 2nd, ... start does; ok when the list is used up
%%                 stop => obey | refuse | {exit, Reason}}   % what it does when asked to shut down
%%   Start = ok | {ok, Info} | ignore | {error, Reason} | {return, Term}
%%
%%   Step = {crash, Id, Reason}   the child exits by itself; kill: it is killed
%%        | {call, Request}       a request of supervisor(3); {pid, Id, N} in it is the pid of the Nth start
%%        | {burst, [Step]}       crashes and calls that are all in the mailbox before the first is handled
%%        | {at, Second}          wait until so many clock seconds after the first of these
%%        | {stop, Reason}        the parent's exit signal
%%
%% The trace has, in the order in which the supervisor did it: {step, N}, {start, Id, N, ok | ignore | error},
%% {stop, Id, N, Reason} for children it stopped, {reply, N, Term}, {report, Context, Reason, Id, Pid},
%% {exit, Reason}. Pids in it are {pid, Id, N}. Everything is seen from inside the supervisor's process with
%% the tracing of the emulator, so that the order is its own.
-module(supervisor_oracle).
-behaviour(supervisor).

-export([run_all/1, run/1]).
-export([init/1, start_child/1, event/1, log/2]).

-record(run, {sup, mon, parent, pids = #{}, trace = [], base, calls = 0, ended = false}).

run_all(Scenarios) ->
    [run(Scenario) || Scenario <- Scenarios].

run(Scenario) ->
    Self = self(),
    {Runner, Mon} = spawn_monitor(fun() -> Self ! {trace_of, self(), run_here(Scenario)} end),
    receive
        {trace_of, Runner, Trace} -> erlang:demonitor(Mon, [flush]), Trace;
        {'DOWN', Mon, process, Runner, Reason} -> {oracle_failed, Reason}
    end.

run_here(#{flags := Flags, children := Children, steps := Steps}) ->
    process_flag(trap_exit, true),
    _ = logger:add_handler(?MODULE, ?MODULE, #{}),
    erlang:trace_pattern({?MODULE, event, 1}, true, []),
    Self = self(),
    Parent = spawn_link(fun() -> parent(Self, Flags, Children) end),
    Run0 = receive
        {started, Sup} ->
            erlang:trace(Sup, true, [call, 'receive', send]),
            Mon = monitor(process, Sup),
            Sup ! go,
            #run{sup = Sup, mon = Mon, parent = Parent}
    end,
    Run1 = settle(Run0),
    Run2 = steps(Steps, 1, Run1),
    Run3 = final(Run2),
    Parent ! finish,
    canonical(lists:reverse(Run3#run.trace), Run3#run.pids).

%% The supervisor's parent: a process of its own, so that its exit signal can be given at will.
parent(Runner, Flags, Children) ->
    process_flag(trap_exit, true),
    _ = supervisor:start_link(?MODULE, {Runner, Flags, Children}),
    parent_loop().

parent_loop() ->
    receive
        {stop, Sup, Reason} -> exit(Sup, Reason), parent_loop();
        finish -> ok;
        _ -> parent_loop()
    end.

init({Runner, Flags, Children}) ->
    Runner ! {started, self()},
    receive go -> ok end,
    {ok, {Flags, Children}}.

%% --- children ------------------------------------------------------------------------------------------

%% Runs in the supervisor, whose process dictionary counts the starts of each child.
start_child(#{id := Id} = Behaviour) ->
    N = case get({starts, Id}) of undefined -> 1; M -> M + 1 end,
    put({starts, Id}, N),
    Starts = maps:get(starts, Behaviour, []),
    Wanted = if N =< length(Starts) -> lists:nth(N, Starts); true -> ok end,
    case Wanted of
        ok -> {ok, spawn_child(Id, N, Behaviour)};
        {ok, Info} -> {ok, spawn_child(Id, N, Behaviour), Info};
        ignore -> ?MODULE:event({start, Id, N, ignore}), ignore;
        {error, Reason} -> ?MODULE:event({start, Id, N, error}), {error, Reason};
        {return, Term} -> ?MODULE:event({start, Id, N, error}), Term
    end.

spawn_child(Id, N, Behaviour) ->
    Stop = maps:get(stop, Behaviour, obey),
    Sup = self(),
    Ref = make_ref(),
    Pid = spawn_link(fun() ->
        process_flag(trap_exit, true),
        Sup ! Ref,
        child_loop(Sup, Stop)
    end),
    receive Ref -> ok end,
    ?MODULE:event({start, Id, N, {ok, Pid}}),
    Pid.

child_loop(Sup, Stop) ->
    receive
        {die, kill} -> exit(self(), kill);
        {die, Reason} -> exit(Reason);
        {'EXIT', Sup, shutdown} ->
            case Stop of
                obey -> exit(shutdown);
                refuse -> child_loop(Sup, Stop);
                {exit, Reason} -> exit(Reason)
            end;
        {'EXIT', Sup, Reason} -> exit(Reason);
        _ -> child_loop(Sup, Stop)
    end.

%% Called only to be traced.
event(_) -> ok.

%% A logger handler; it runs in the process that logs, here the supervisor.
log(#{msg := {report, #{label := {supervisor, _}, report := Report}}}, _Config) ->
    case {proplists:get_value(errorContext, Report), proplists:get_value(offender, Report)} of
        {undefined, _} -> ok;
        {Context, Offender} ->
            Pid = case proplists:get_value(nb_children, Offender) of
                undefined -> proplists:get_value(pid, Offender);
                Number -> {nb_children, Number}
            end,
            ?MODULE:event({report, Context, proplists:get_value(reason, Report),
                           proplists:get_value(id, Offender), Pid})
    end;
log(_, _) -> ok.

%% --- steps ---------------------------------------------------------------------------------------------

steps([], _, Run) -> Run;
steps([Step | Rest], N, Run) ->
    steps(Rest, N + 1, settle(step(Step, add({step, N}, Run)))).

step(_, #run{ended = true} = Run) -> Run;
step({crash, _, _} = Crash, Run) -> crash(Crash, Run);
step({call, Request}, Run) -> await_replies(Run#run.calls, send_call(Request, Run));
step({burst, Steps}, Run) ->
    ok = sys:suspend(Run#run.sup),
    First = Run#run.calls,
    Run1 = lists:foldl(
        fun({crash, _, _} = Crash, R) -> crash(Crash, R);
           ({call, Request}, R) -> send_call(Request, R)
        end, Run, Steps),
    ok = sys:resume(Run#run.sup),
    await_replies(First, Run1);
step({at, Second}, #run{base = undefined} = Run) ->
    Now = erlang:monotonic_time(second),
    wait_for_second(Now + 1),
    step({at, Second}, Run#run{base = Now + 1});
step({at, Second}, #run{base = Base} = Run) ->
    wait_for_second(Base + Second),
    Run;
step({stop, Reason}, Run) ->
    Run#run.parent ! {stop, Run#run.sup, Reason},
    until(fun(R) -> R#run.ended end, Run).

wait_for_second(Second) ->
    Start = erlang:convert_time_unit(Second, second, native),
    case Start - erlang:monotonic_time() of
        Left when Left > 0 ->
            timer:sleep(erlang:convert_time_unit(Left, native, millisecond) + 1),
            wait_for_second(Second);
        _ -> ok
    end.

crash({crash, Id, Reason}, Run) ->
    case last_pid(Id, Run) of
        undefined -> Run;
        Pid ->
            case is_process_alive(Pid) of
                false -> Run;
                true ->
                    Pid ! {die, Reason},
                    until(fun(R) -> R#run.ended orelse lists:member({gone, Pid}, R#run.trace) end, Run)
            end
    end.

last_pid(Id, #run{pids = Pids}) ->
    case lists:sort([{N, Pid} || {Pid, {pid, I, N}} <- maps:to_list(Pids), I =:= Id]) of
        [] -> undefined;
        Found -> element(2, lists:last(Found))
    end.

send_call(Request, #run{calls = N} = Run) ->
    Run#run.sup ! {'$gen_call', {self(), {oracle, N}}, with_pids(Request, Run)},
    Run#run{calls = N + 1}.

await_replies(First, Run) ->
    Wanted = lists:seq(First, Run#run.calls - 1),
    until(fun(R) ->
        R#run.ended orelse
            lists:all(fun(N) -> lists:keymember({oracle, N}, 2, [T || {reply, _, _} = T <- R#run.trace]) end, Wanted)
    end, Run).

with_pids({pid, Id, N}, #run{pids = Pids}) ->
    case [Pid || {Pid, {pid, I, M}} <- maps:to_list(Pids), I =:= Id, M =:= N] of
        [Pid] -> Pid;
        [] -> no_such_pid
    end;
with_pids(T, Run) when is_tuple(T) -> list_to_tuple(with_pids(tuple_to_list(T), Run));
with_pids([H | T], Run) -> [with_pids(H, Run) | with_pids(T, Run)];
with_pids(T, _) -> T.

%% Wait until no child is about to be restarted any more.
settle(#run{ended = true} = Run) -> Run;
settle(#run{sup = Sup} = Run) ->
    Ref = make_ref(),
    Sup ! {'$gen_call', {self(), {settle, Ref}}, which_children},
    Run1 = until(fun(R) -> R#run.ended orelse lists:keymember({settle, Ref}, 2, settled(R)) end, Run),
    Answer = case lists:keyfind({settle, Ref}, 2, settled(Run1)) of
        {reply, _, Children} -> Children;
        false -> []
    end,
    Run2 = Run1#run{trace = [T || T <- Run1#run.trace, not is_settling(T)]},
    case lists:any(fun(Child) -> element(2, Child) =:= restarting end, Answer) of
        true -> settle(Run2);
        false -> Run2
    end.

settled(#run{trace = Trace}) -> [T || T <- Trace, is_settling(T)].

is_settling({reply, {settle, _}, _}) -> true;
is_settling(_) -> false.

final(#run{ended = true} = Run) -> Run;
final(Run) -> step({stop, shutdown}, add({step, final}, Run)).

%% --- the trace -----------------------------------------------------------------------------------------

until(Done, Run) ->
    case Done(Run) of
        true -> Run;
        false -> until(Done, next(Run))
    end.

next(#run{sup = Sup, mon = Mon} = Run) ->
    receive
        {trace, Sup, _, _} = Trace -> traced(Trace, Run);
        {trace, Sup, _, _, _} = Trace -> traced(Trace, Run);
        {'DOWN', Mon, process, Sup, Reason} ->
            Ref = erlang:trace_delivered(Sup),
            receive {trace_delivered, Sup, Ref} -> ok end,
            add({exit, Reason}, (all_traced(Run))#run{ended = true})
    after 20000 ->
        exit({no_progress, lists:reverse(Run#run.trace), erlang:process_info(Sup, messages)})
    end.

all_traced(#run{sup = Sup} = Run) ->
    receive
        {trace, Sup, _, _} = Trace -> all_traced(traced(Trace, Run));
        {trace, Sup, _, _, _} = Trace -> all_traced(traced(Trace, Run))
    after 0 -> Run
    end.

traced({trace, _, call, {?MODULE, event, [{start, Id, N, {ok, Pid}}]}}, #run{pids = Pids} = Run) ->
    add({start, Id, N, ok}, Run#run{pids = Pids#{Pid => {pid, Id, N}}});
traced({trace, _, call, {?MODULE, event, [Event]}}, Run) ->
    add(Event, Run);
traced({trace, _, 'receive', {'DOWN', _, process, Pid, Reason}}, Run) when Reason =/= noproc ->
    case Run#run.pids of
        #{Pid := {pid, Id, N}} -> add({stop, Id, N, Reason}, Run);
        _ -> Run
    end;
traced({trace, _, 'receive', {'EXIT', Pid, _}}, Run) ->
    add({gone, Pid}, Run);
traced({trace, _, send, {{Kind, _} = Tag, Reply}, To}, Run)
  when To =:= self(), (Kind =:= oracle orelse Kind =:= settle) ->
    add({reply, Tag, Reply}, Run);
traced(_, Run) ->
    Run.

add(Event, Run) -> Run#run{trace = [Event | Run#run.trace]}.

canonical(Trace, Pids) ->
    [canonical_term(Event, Pids) || Event <- Trace, element(1, Event) =/= gone].

canonical_term({reply, {oracle, N}, Reply}, Pids) -> {reply, N, canonical_term(Reply, Pids)};
canonical_term(Pid, Pids) when is_pid(Pid) -> maps:get(Pid, Pids, unknown_pid);
canonical_term(T, Pids) when is_tuple(T) -> list_to_tuple(canonical_term(tuple_to_list(T), Pids));
canonical_term([H | T], Pids) -> [canonical_term(H, Pids) | canonical_term(T, Pids)];
canonical_term(M, Pids) when is_map(M) ->
    maps:from_list([{canonical_term(K, Pids), canonical_term(V, Pids)} || {K, V} <- maps:to_list(M)]);
canonical_term(T, _) -> T.
