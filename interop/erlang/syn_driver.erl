%% Drives a real syn: lasting member processes that remember what they are sent, and a log of syn's callbacks.
%% An evaluation over stdio has a process that ends with it, so members have to be started here.
-module(syn_driver).

-export([start/1, member/0, join/2, join/3, register/3, in/2, received/1, wait/3, crash/2, callbacks/0]).
-export([on_process_joined/5, on_process_left/5, on_process_registered/5, on_process_unregistered/5,
         on_group_process_updated/5, on_registry_process_updated/5]).

-define(LOG, syn_driver_callbacks).

%% Start syn, keep a log of its callbacks, and run the scopes.
start(Scopes) ->
    {ok, _} = application:ensure_all_started(syn),
    Caller = self(),
    Keeper = spawn(fun() ->
                       ets:new(?LOG, [named_table, public, ordered_set]),
                       Caller ! {self(), ready},
                       receive stop -> ok end
                   end),
    receive {Keeper, ready} -> ok end,
    ok = syn:set_event_handler(?MODULE),
    ok = syn:add_node_to_scopes(Scopes).

%% A process that remembers, in order, every message it is sent.
member() -> spawn(fun() -> remember([], []) end).

join(Scope, Group) -> join(Scope, Group, undefined).

join(Scope, Group, Meta) ->
    Pid = member(),
    ok = syn:join(Scope, Group, Pid, Meta),
    Pid.

register(Scope, Name, Meta) ->
    Pid = member(),
    ok = syn:register(Scope, Name, Pid, Meta),
    Pid.

%% Run a fun inside a member: what it sends comes from that process.
in(Pid, Fun) -> ask(Pid, {run, Fun}, 5000).

received(Pid) -> ask(Pid, received, 5000).

%% Wait until a member has been sent Count messages, and return all it has.
wait(Pid, Count, Timeout) -> ask(Pid, {wait, Count}, Timeout).

%% End a member with an exit reason of its own.
crash(Pid, Reason) -> Pid ! {?MODULE, crash, Reason}, ok.

%% What syn has called back so far, oldest first.
callbacks() -> [Call || {_, Call} <- ets:tab2list(?LOG)].

on_process_joined(Scope, Group, Pid, Meta, Reason) -> log({joined, Scope, Group, Pid, Meta, Reason}).
on_process_left(Scope, Group, Pid, Meta, Reason) -> log({left, Scope, Group, Pid, Meta, Reason}).
on_process_registered(Scope, Name, Pid, Meta, Reason) -> log({registered, Scope, Name, Pid, Meta, Reason}).
on_process_unregistered(Scope, Name, Pid, Meta, Reason) -> log({unregistered, Scope, Name, Pid, Meta, Reason}).
on_group_process_updated(Scope, Group, Pid, Meta, Reason) -> log({updated, Scope, Group, Pid, Meta, Reason}).
on_registry_process_updated(Scope, Name, Pid, Meta, Reason) -> log({updated, Scope, Name, Pid, Meta, Reason}).

log(Call) -> ets:insert(?LOG, {erlang:unique_integer([monotonic]), Call}).

ask(Pid, Request, Timeout) ->
    Ref = monitor(process, Pid),
    Pid ! {?MODULE, Request, self(), Ref},
    receive
        {Ref, Reply} -> demonitor(Ref, [flush]), Reply;
        {'DOWN', Ref, process, Pid, Reason} -> exit({member_down, Reason})
    after Timeout ->
        demonitor(Ref, [flush]),
        exit({timeout, Request, received(Pid)})
    end.

%% Messages newest first; waiters as {Count, Pid, Ref}.
remember(Messages, Waiting) ->
    {Served, Left} = lists:partition(fun({Count, _, _}) -> length(Messages) >= Count end, Waiting),
    [Pid ! {Ref, lists:reverse(Messages)} || {_, Pid, Ref} <- Served],
    receive
        {?MODULE, {run, Fun}, From, Ref} -> From ! {Ref, Fun()}, remember(Messages, Left);
        {?MODULE, received, From, Ref} -> From ! {Ref, lists:reverse(Messages)}, remember(Messages, Left);
        {?MODULE, {wait, Count}, From, Ref} -> remember(Messages, [{Count, From, Ref} | Left]);
        {?MODULE, crash, Reason} -> exit(Reason);
        Message -> remember([Message | Messages], Left)
    end.
